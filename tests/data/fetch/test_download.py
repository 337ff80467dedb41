"""Downloads: whole or absent, checked, with the way round a source that cannot be reached."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lares.data import load_dataset
from lares.data.fetch import movielens as module
from lares.data.fetch.amazon import get_amazon_2023
from lares.data.fetch.sets import SETS, fetched, located
from lares.errors import ConfigError, DataError, DownloadError

U_DATA = "1\t5\t3\t10\n1\t6\t3\t11\n1\t5\t4\t12\n1\t7\t1\t9\n"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of this machine and the folder it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}", folder
    web.shutdown()
    web.server_close()


@pytest.fixture
def archive(server, monkeypatch: pytest.MonkeyPatch) -> Path:
    url, folder = server
    path = folder / "ml-100k.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("ml-100k/u.data", U_DATA)
    monkeypatch.setattr(module, "MOVIELENS_URL", f"{url}/ml-100k.zip")
    monkeypatch.setattr(module, "MOVIELENS_MD5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


def fake_wheel(monkeypatch: pytest.MonkeyPatch, content: str | None) -> list[list[str]]:
    """A pip that brings a wheel with ``content``, or fails; gives its command lines."""
    calls: list[list[str]] = []

    def run(command, **_):
        calls.append(command)
        if content is None:
            return subprocess.CompletedProcess(command, 1, "", "ERROR: no network\n")
        wheel = Path(command[command.index("--dest") + 1]) / "recbole-1.2.1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("recbole/dataset_example/ml-100k/ml-100k.inter", content)
        monkeypatch.setattr(
            module, "RECBOLE_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest()
        )
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    return calls


@pytest.mark.usefixtures("archive")
def test_movielens_from_its_source(tmp_path: Path) -> None:
    path = module.get_movielens_100k(tmp_path / "cache", progress=False)
    assert path.read_text() == U_DATA
    assert len(load_dataset(path).train) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["u.data"]


def test_kept_data_is_not_fetched_again(archive: Path, tmp_path: Path) -> None:
    first = module.get_movielens_100k(tmp_path, progress=False)
    archive.unlink()
    assert module.get_movielens_100k(tmp_path, progress=False) == first


def test_wrong_hash_keeps_nothing(archive: Path, tmp_path: Path, monkeypatch) -> None:
    archive.write_bytes(archive.read_bytes() + b"x")
    fake_wheel(monkeypatch, None)
    with pytest.raises(DownloadError, match=r"has md5 [0-9a-f]{32}, expected [0-9a-f]{32}"):
        module.get_movielens_100k(tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else True


def test_unreachable_source_falls_back_to_the_wheel(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOVIELENS_URL", f"{server[0]}/absent.zip")
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    rows = "1\t5\t1\n1\t6\t2\n1\t7\t3\n1\t5\t4\n"
    calls = fake_wheel(monkeypatch, header + rows)
    path = module.get_movielens_100k(tmp_path / "cache", progress=False)
    assert path.name == "ml-100k.inter"
    assert len(load_dataset(path.parent).train) == 1
    assert {"--no-deps", "--require-hashes"} <= set(calls[0])


def test_wheel_with_another_hash(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOVIELENS_URL", f"{server[0]}/absent.zip")
    fake_wheel(monkeypatch, "user_id:token\n")
    run = module.subprocess.run

    def tampered(command, **options):
        done = run(command, **options)
        monkeypatch.setattr(module, "RECBOLE_SHA256", "0" * 64)
        return done

    monkeypatch.setattr(module.subprocess, "run", tampered)
    with pytest.raises(DownloadError, match="expected 0000"):
        module.get_movielens_100k(tmp_path / "cache", progress=False)
    assert not (tmp_path / "cache" / "ml-100k.inter").exists()


def test_nothing_can_be_reached(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOVIELENS_URL", f"{server[0]}/absent.zip")
    fake_wheel(monkeypatch, None)
    with pytest.raises(DownloadError, match=r"absent\.zip cannot be fetched.*pip could not fetch"):
        module.get_movielens_100k(tmp_path, progress=False)


def test_amazon_asks_the_hub_for_the_five_core_file(tmp_path, monkeypatch) -> None:
    import huggingface_hub

    asked = {}

    def hub(**options):
        asked.update(options)
        path = Path(options["local_dir"]) / options["filename"]
        path.parent.mkdir(parents=True)
        rows = "".join(f"A,B00{i},5.0,{i}\n" for i in range(5))
        path.write_text("user_id,parent_asin,rating,timestamp\n" + rows)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    path = get_amazon_2023("Video_Games", tmp_path)
    assert asked["repo_id"] == "McAuley-Lab/Amazon-Reviews-2023"
    assert asked["filename"] == "benchmark/5core/rating_only/Video_Games.csv"
    assert len(load_dataset(path).train) == 2


def test_amazon_errors(tmp_path, monkeypatch) -> None:
    import huggingface_hub

    with pytest.raises(DownloadError, match="unknown category 'Video_Game'; did you mean"):
        get_amazon_2023("Video_Game", tmp_path)

    def unreachable(**_):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(DownloadError, match=r"Video_Games\.csv.*no route"):
        get_amazon_2023("Video_Games", tmp_path)


RATINGS = {
    "ml-1m": "1::5::3::10\n1::6::3::11\n1::5::4::12\n1::7::1::9\n",
    "ml-10m": "1::5::3::10\n1::6::3::11\n1::5::4.5::12\n1::7::1::9\n",
    "ml-latest-small": "userId,movieId,rating,timestamp\n1,5,3,10\n1,6,3,11\n1,5,4,12\n1,7,1,9\n",
}


@pytest.fixture
def releases(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a server with releases of MovieLens; the cache is another one."""
    url, folder = server
    for name, text in RATINGS.items():
        release = module.RELEASES[name]
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as file:
            file.writestr(release.member, text)
        digest = hashlib.new(release.algorithm, (folder / f"{name}.zip").read_bytes()).hexdigest()
        monkeypatch.setitem(module.RELEASES, name, release._replace(digest=digest))
    monkeypatch.setattr(module, "MOVIELENS_FOLDER", url)
    monkeypatch.setenv("LARES_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize("name", RATINGS)
def test_sets_by_name(releases: Path, tmp_path: Path, capsys, monkeypatch, name: str) -> None:
    dataset = load_dataset(name)
    assert dataset.name == name
    assert dataset.vocabulary.decode(dataset.test.items.tolist()) == [7, 5, 6, 5]
    told = capsys.readouterr()
    assert "GroupLens: cite Harper and Konstan" in told.err
    assert told.out == ""
    (releases / f"{name}.zip").unlink()  # and it is not fetched again
    assert located(name) == tmp_path / "cache" / name / Path(module.RELEASES[name].member).name
    assert load_dataset(located(name).parent).digest() == dataset.digest()
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()  # what is there is itself
    assert located(name) == Path(name)


def test_every_set_has_its_terms() -> None:
    assert len(SETS) >= 4
    for name, each in SETS.items():
        assert each.what
        assert each.licence, name


def test_sets_that_cannot_be_fetched(releases: Path, tmp_path: Path) -> None:
    (releases / "ml-1m.zip").write_bytes(b"another")
    with pytest.raises(DownloadError, match=r"ml-1m\.zip has md5 [0-9a-f]+, expected"):
        located("ml-1m")
    assert not list((tmp_path / "cache").rglob("ratings*"))
    with pytest.raises(
        DataError, match="no file or folder films, and no public data set; those are "
    ):
        located("films")
    with pytest.raises(DataError, match=r"no file or folder films\.csv$"):
        located("films.csv")
    with pytest.raises(ConfigError, match="ml-1m has no categories; got 'Books'"):
        located("ml-1m/Books")
    with pytest.raises(ConfigError, match="amazon23 needs a CATEGORY"):
        located("amazon23")
    with pytest.raises(DownloadError, match="did you mean 'Books'"):
        located("amazon23/Bookz")
    with pytest.raises(ConfigError, match="did you mean 'ml-100k'"):
        fetched("ml100k")


def test_a_category_that_is_there(tmp_path: Path, monkeypatch) -> None:
    """Is read without the hub."""
    monkeypatch.setenv("LARES_CACHE", str(tmp_path))
    path = tmp_path / "amazon23" / "benchmark" / "5core" / "rating_only" / "Books.csv"
    path.parent.mkdir(parents=True)
    rows = "".join(f"A,B00{i},5.0,{i}\n" for i in range(5))
    path.write_text("user_id,parent_asin,rating,timestamp\n" + rows)
    dataset = load_dataset("amazon23/Books")
    assert dataset.name == "Books"
    assert len(dataset.train) == 2
