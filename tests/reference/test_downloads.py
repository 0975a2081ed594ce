"""MNIST is downloaded once, from the first mirror that has it, and a broken download is never read."""

import gzip
import hashlib
import io
import logging
import os
import re
import sys
from pathlib import Path

import pooch
import pytest

from data_files import ARRAYS, idx
from reference import downloads
from reference.datasets import DataError, load, load_mnist

FILES = [
    f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
]
CONTENTS = {file: gzip.compress(idx(a)) for file, a in zip(FILES, ARRAYS, strict=True)}


class Mirrors:
    """Stands in for `pooch.retrieve`: hosts in `broken` raise what they map to, the others serve CONTENTS."""

    def __init__(self, broken=()):
        self.broken = dict(broken)
        self.calls = []

    def __call__(self, url, known_hash, fname, path, progressbar):
        self.calls.append((url, known_hash, Path(path), progressbar, pooch.get_logger().level))
        for host, error in self.broken.items():
            if host in url:
                raise error
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes(CONTENTS[fname])
        return str(Path(path) / fname)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FDNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_each_file_is_fetched_from_the_first_mirror_into_the_cache(name, cache, monkeypatch):
    mirrors = Mirrors()
    monkeypatch.setattr(pooch, "retrieve", mirrors)
    assert load(name).x_train.shape == (5, 12)
    first = downloads.MIRRORS[name][0]
    assert [call[0] for call in mirrors.calls] == [first + file for file in FILES]
    assert [call[1] for call in mirrors.calls] == [f"md5:{md5}" for md5 in downloads.MD5[name]]
    assert {call[2] for call in mirrors.calls} == {cache / name}
    assert {str(p.relative_to(cache)) for p in cache.rglob("*.gz")} == {os.path.join(name, file) for file in FILES}


@pytest.mark.parametrize("error", [ConnectionError("down"), ValueError("hash")])
def test_the_second_mirror_stands_in_for_the_first(error, cache, monkeypatch):
    mirrors = Mirrors({"ossci": error})
    monkeypatch.setattr(pooch, "retrieve", mirrors)
    (x_train, _), _ = load_mnist()
    assert x_train.shape == (5, 12)
    hosts = ["ossci" if "ossci" in call[0] else "cvdf" for call in mirrors.calls]
    assert hosts == ["ossci", "cvdf"] * 4


def test_no_mirror_is_one_sentence_with_a_way_out(cache, monkeypatch):
    last = ValueError("hash")
    monkeypatch.setattr(pooch, "retrieve", Mirrors({"fashion-mnist.s3": TimeoutError(), "zalandoresearch": last}))
    with pytest.raises(DataError) as caught:
        load("fashion-mnist")
    assert str(caught.value) == (
        f"fashion-mnist could not be downloaded to {cache / 'fashion-mnist'}, got no train-images-idx3-ubyte.gz from "
        "fashion-mnist.s3-website.eu-central-1.amazonaws.com (TimeoutError) or raw.githubusercontent.com "
        "(wrong checksum); a folder can be given instead of the name."
    )
    assert caught.value.__cause__ is last


def test_the_cache_is_poochs_own_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("FDNET_CACHE", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "os" / project)
    mirrors = Mirrors()
    monkeypatch.setattr(pooch, "retrieve", mirrors)
    load("mnist")
    assert {call[2] for call in mirrors.calls} == {tmp_path / "os" / "fdnet" / "mnist"}


def test_without_a_home_folder_the_cache_must_be_named(monkeypatch):
    def no_home(*_):
        raise RuntimeError("could not determine the home directory for '~/.cache'")

    monkeypatch.setattr(pooch, "os_cache", no_home)
    monkeypatch.delenv("FDNET_CACHE", raising=False)
    with pytest.raises(DataError, match=r"^mnist must have a folder .* no home folder is known: set FDNET_CACHE"):
        load("mnist")
    monkeypatch.setenv("FDNET_CACHE", "~a-user-that-nobody-has/cache")
    with pytest.raises(DataError, match=r"^mnist must have a folder"):
        load("mnist")


@pytest.mark.parametrize("broken", [{}, {"amazonaws": OSError(), "googleapis": OSError()}])
def test_poochs_logger_is_quiet_only_meanwhile(broken, cache, monkeypatch):
    logger = pooch.get_logger()
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    mirrors = Mirrors(broken)
    monkeypatch.setattr(pooch, "retrieve", mirrors)
    try:
        load("mnist")
    except DataError:
        assert broken
    assert {call[4] for call in mirrors.calls} == {logging.WARNING}
    assert logger.level == logging.DEBUG


def serve(contents, fetched, tells_size=True):
    """Return a stand-in for pooch's downloader that drives a progress bar as pooch does."""

    def choose(url, progressbar=False):
        def download(url, output_file, pooch):
            content = contents[url.rsplit("/", 1)[1]]
            fetched.append(url)
            Path(output_file).write_bytes(content)
            if progressbar:
                progressbar.total = total = len(content) if tells_size else 0
                progressbar.update(len(content))
                progressbar.reset()
                progressbar.update(total)
                progressbar.close()

        return download

    return choose


@pytest.fixture
def served(cache, monkeypatch):
    fetched = []
    monkeypatch.setattr(pooch.core, "choose_downloader", serve(CONTENTS, fetched))
    monkeypatch.setitem(downloads.MD5, "mnist", tuple(hashlib.md5(CONTENTS[file]).hexdigest() for file in FILES))
    return fetched


def test_what_is_cached_and_sound_is_not_fetched_again(served, cache):
    load("mnist")
    load("mnist")
    assert len(served) == 4
    (cache / "mnist" / FILES[1]).write_bytes(b"damaged")
    load("mnist")
    assert [url.rsplit("/", 1)[1] for url in served[4:]] == [FILES[1]]


def test_a_file_of_another_hash_is_not_kept(served, cache, monkeypatch):
    monkeypatch.setattr(pooch.core, "choose_downloader", serve(dict.fromkeys(FILES, b"<html>"), served))
    with pytest.raises(DataError, match=r"\(wrong checksum\) or storage.googleapis.com \(wrong checksum\)"):
        load("mnist")
    assert len(served) == 2
    assert not any(cache.rglob("*.gz"))


class Terminal(io.StringIO):
    def isatty(self):
        return True


BAR = "\N{BOX DRAWINGS HEAVY HORIZONTAL}"


def shown_on_a_terminal(monkeypatch):
    """Load mnist and return the lines that are drawn, one over the other, without colours."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    for name, value in {"TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    load("mnist")
    return re.sub(r"\x1b\[[?\d]*[A-Za-z]", "", sys.stderr.getvalue()).splitlines()


def test_progress_is_shown_on_a_terminal_only(served, cache, monkeypatch, capsys):
    load("mnist")
    assert capsys.readouterr() == ("", "")
    for file in cache.rglob("*.gz"):
        file.unlink()
    lines = shown_on_a_terminal(monkeypatch)
    for file, content in CONTENTS.items():
        assert f"{file} {40 * BAR} {len(content)}/{len(content)} bytes" in lines
    assert capsys.readouterr().out == ""


def test_a_server_need_not_tell_the_size(served, monkeypatch):
    monkeypatch.setattr(pooch.core, "choose_downloader", serve(CONTENTS, served, tells_size=False))
    lines = [line for line in shown_on_a_terminal(monkeypatch) if line]
    assert {line.split()[0] for line in lines} == set(FILES)
    assert all(line.endswith(" 0/? bytes") for line in lines)


def test_no_progress_is_shown_for_what_is_cached(served, monkeypatch):
    load("mnist")
    monkeypatch.setattr(sys, "stderr", Terminal())
    load("mnist")
    assert not any(file in sys.stderr.getvalue() for file in FILES)


def test_without_pooch_a_local_folder_is_offered(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError) as caught:
        load("mnist")
    assert str(caught.value) == (
        "mnist must be downloaded by pooch, got 'import of pooch halted; None in sys.modules'; "
        "a folder can be given instead of the name."
    )
