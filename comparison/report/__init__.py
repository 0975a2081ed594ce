"""Tables, figures and pages that show the results."""
