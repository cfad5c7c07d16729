"""The example API serves all of its data, and fails exactly as it was told to."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from support.scripts import EXAMPLES, load_script

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPT = EXAMPLES / "gov_api.py"
REGIONS = 250
PLACES = 20_278


gov_api = load_script(SCRIPT)
make_regions = load_script(EXAMPLES / "data" / "make_regions.py")


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class Client:
    """Calls over one connection, which it opens anew when the server has ended it."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def close(self) -> None:
        self.connection.close()

    def call(self, target: str, *, method: str = "GET") -> Reply:
        """Calls once; a connection that is dropped is a ConnectionError."""
        try:
            self.connection.request(method, target)
            with self.connection.getresponse() as response:
                return Reply(
                    response.status, dict(response.headers.items()), json.loads(response.read())
                )
        except ConnectionError:
            self.connection.close()
            raise

    def outcome(self, target: str) -> str:
        """Says how a call ended, in the words of the statistics."""
        try:
            return str(self.call(target).status)
        except ConnectionError:
            return "dropped"

    def insist(self, target: str) -> Any:
        """Repeats a call until it succeeds."""
        while True:
            try:
                reply = self.call(target)
            except ConnectionError:
                continue
            if reply.status == 200:
                return reply.body
            assert reply.status in {429, 500}

    def crawl(self, target: str, *, size: int = 100) -> list[dict[str, Any]]:
        """Gets every page of a listing."""
        items: list[dict[str, Any]] = []
        page = 1
        while True:
            body = self.insist(f"{target}?page={page}&size={size}")
            assert body["page"] == page
            items += body["items"]
            if page * body["size"] >= body["totalCount"]:
                assert len(items) == body["totalCount"]
                return items
            page += 1


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    threads = set(threading.enumerate())
    before = descriptors() if sys.platform == "linux" else 0
    yield
    # What an earlier test left may go meanwhile.
    assert set(threading.enumerate()) <= threads
    if sys.platform == "linux":
        assert descriptors() <= before


@pytest.fixture
def api() -> Iterator[Any]:
    with gov_api.GovApi() as served:
        yield served


@pytest.fixture
def client(api: Any) -> Iterator[Client]:
    with closing(Client(api.port)) as made:
        yield made


# The data file.


def test_the_file_has_every_region_and_place_once() -> None:
    regions = gov_api.load_regions()
    places = [place for region in regions.values() for place in region.places]
    assert len(regions) == REGIONS
    assert len(places) == PLACES
    assert len({place.id for place in places}) == PLACES
    assert list(regions) == sorted(regions)
    assert all(region.places for region in regions.values())


def test_a_place_belongs_to_the_region_its_code_begins_with() -> None:
    for code, region in gov_api.load_regions().items():
        assert region.code == code
        assert len(code) == 5
        assert code.isdecimal()
        for place in region.places:
            assert len(place.id) == 10
            assert place.id.isdecimal()
            assert place.id[:5] == code
            assert place.id[5:] != "00000"
            assert place.name.startswith(f"{region.name} ")
            assert place.name == " ".join(place.name.split())


def test_well_known_names() -> None:
    regions = gov_api.load_regions()
    assert regions["11110"].name == "서울특별시 종로구"
    assert regions["11110"].places[0] == gov_api.Place("1111010100", "서울특별시 종로구 청운동")
    # A city of its own, a district of a city, and a village in a town.
    assert regions["36110"].name == "세종특별자치시"
    assert regions["41111"].name == "경기도 수원시 장안구"
    names = {place.id: place.name for place in regions["26710"].places}
    assert names["2671025021"] == "부산광역시 기장군 기장읍 동부리"


def test_the_file_is_what_its_script_writes() -> None:
    columns = ("법정동코드", "시도명", "시군구명", "읍면동명", "동리명", "말소일자")
    nan = float("nan")
    rows: list[tuple[str | float, ...]] = [
        ("3611025021", "세종특별자치시", nan, "조치원읍", "원리", nan),
        ("1100000000", "서울특별시", nan, nan, nan, nan),
        ("1111000000", "서울특별시", "종로구", nan, nan, nan),
        ("1111010200", "서울특별시", "종로구", "신교동", nan, nan),
        ("1111010100", "서울특별시", "종로구", "청운동", nan, nan),
        ("1111010150", "서울특별시", "종로구", "옛동", nan, "19990101"),
    ]
    raw = {
        name: {str(number): row[at] for number, row in enumerate(rows)}
        for at, name in enumerate(columns)
    }
    text, regions, places = make_regions.tabulate(make_regions.parse(json.dumps(raw).encode()))
    assert (regions, places) == (2, 3)
    assert text == (
        "11110\t서울특별시\t종로구\n1111010100\t청운동\n1111010200\t신교동\n"
        "36110\t세종특별자치시\n3611025021\t조치원읍 원리\n"
    )


# Paging.


def test_paging_covers_everything_exactly_once(client: Client) -> None:
    regions = client.crawl("/regions")
    assert len(regions) == REGIONS
    assert regions[0] == {"code": "11110", "name": "서울특별시 종로구", "places": 87}
    assert sum(region["places"] for region in regions) == PLACES
    seen: Counter[str] = Counter()
    for region in regions:
        places = client.crawl(f"/regions/{region['code']}/places")
        assert len(places) == region["places"]
        seen.update(place["id"] for place in places)
    assert len(seen) == PLACES
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("size", [1, 7, 50, 87, 100])
def test_any_size_gives_the_same_places_in_the_same_order(client: Client, size: int) -> None:
    places = client.crawl("/regions/11110/places", size=size)
    assert [place["id"] for place in places] == [
        place.id for place in gov_api.load_regions()["11110"].places
    ]
    assert places[0] == {"id": "1111010100", "name": "서울특별시 종로구 청운동"}


def test_size_is_capped_and_says_so(client: Client) -> None:
    body = client.call("/regions?size=1000").body
    assert body["size"] == 100
    assert len(body["items"]) == 100
    assert body["totalCount"] == REGIONS


def test_defaults_are_the_first_page_of_the_page_size() -> None:
    with gov_api.GovApi(page_size=20) as api, closing(Client(api.port)) as client:
        body = client.call("/regions").body
        assert (body["page"], body["size"], len(body["items"])) == (1, 20, 20)
        assert client.call("/regions?size=21").body["size"] == 20


def test_a_page_past_the_end_is_empty(client: Client) -> None:
    body = client.call("/regions?page=4&size=100").body
    assert body == {"totalCount": REGIONS, "page": 4, "size": 100, "items": []}


# Refusals.


@pytest.mark.parametrize("name", ["page", "size"])
@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "1_0", "%EF%BC%91", "9" * 5000])
def test_a_bad_page_or_size_is_a_400(client: Client, name: str, value: str) -> None:
    reply = client.call(f"/regions?{name}={value}")
    assert reply.status == 400
    assert reply.body == {"error": f"{name} must be a positive number"}


@pytest.mark.parametrize(
    "target",
    ["/regions/99999/places", "/regions//places", "/regions/11110", "/", "/nothing?page=1", "//["],
)
def test_what_is_not_there_is_a_404(client: Client, target: str) -> None:
    reply = client.call(target)
    assert reply.status == 404
    assert "error" in reply.body
    assert reply.headers["Content-Type"].startswith("application/json")


def test_other_methods_are_refused_in_json(client: Client) -> None:
    reply = client.call("/regions", method="POST")
    assert reply.status == 501
    assert "error" in reply.body


def test_a_refusal_keeps_the_connection(client: Client) -> None:
    assert client.call("/regions/99999/places").status == 404
    kept = client.connection.sock
    assert client.call("/regions?size=1").status == 200
    assert client.connection.sock is kept


# Failures.


def outcomes(*, seed: int, fail: float = 0.3, calls: int = 40) -> dict[str, list[str]]:
    targets = [f"/regions?page={page}&size=10" for page in range(1, 9)]
    with gov_api.GovApi(fail=fail, seed=seed, retry_after=3) as api:

        def repeat(target: str) -> list[str]:
            with closing(Client(api.port)) as client:
                return [client.outcome(target) for _ in range(calls)]

        # Each target has a thread of its own, so the order among targets is up to chance.
        with ThreadPoolExecutor(len(targets)) as pool:
            return dict(zip(targets, pool.map(repeat, targets), strict=True))


def test_the_seed_decides_which_calls_fail_whatever_the_threads_do() -> None:
    first = outcomes(seed=7)
    assert outcomes(seed=7) == first
    assert outcomes(seed=8) != first
    # Targets fail independently of one another.
    assert len({tuple(ends) for ends in first.values()}) == len(first)


def test_all_three_kinds_occur_in_about_the_share_that_was_asked_for() -> None:
    ends = Counter(end for each in outcomes(seed=1).values() for end in each)
    assert set(ends) == {"200", "429", "500", "dropped"}
    assert 0.2 < 1 - ends["200"] / ends.total() < 0.4


def test_a_decision_never_changes() -> None:
    # Runs that were recorded with one version must replay with the next.
    ends = [gov_api.failure_of("/regions", nth=nth, seed=7, share=0.5) for nth in range(1, 13)]
    assert ends[:6] == ["dropped", "429", "429", "429", "dropped", "429"]
    assert ends[6:] == [None, None, "429", None, None, None]


def test_none_fail_and_all_fail() -> None:
    fine = outcomes(seed=1, fail=0.0, calls=5)
    assert all(set(each) == {"200"} for each in fine.values())
    broken = outcomes(seed=1, fail=1.0, calls=5)
    assert all("200" not in each for each in broken.values())


def test_a_429_says_when_to_come_back() -> None:
    with gov_api.GovApi(fail=1.0, retry_after=3) as api, closing(Client(api.port)) as client:
        while True:
            try:
                reply = client.call("/regions")
            except ConnectionError:
                continue
            assert "error" in reply.body
            if reply.status == 429:
                assert reply.headers["Retry-After"] == "3"
                return


def test_a_client_that_repeats_gets_every_place() -> None:
    with gov_api.GovApi(fail=0.2, seed=7, retry_after=0) as api:
        with closing(Client(api.port)) as client:
            codes = [region["code"] for region in client.crawl("/regions")]

        def crawl(code: str) -> list[str]:
            with closing(Client(api.port)) as client:
                return [place["id"] for place in client.crawl(f"/regions/{code}/places")]

        with ThreadPoolExecutor(8) as pool:
            seen = Counter(code for codes in pool.map(crawl, codes) for code in codes)
        stats = api.stats()
    assert len(seen) == PLACES
    assert set(seen.values()) == {1}
    assert stats["failed"] > 0


def test_stats_count_calls_and_failures_and_nothing_else() -> None:
    with gov_api.GovApi(fail=0.5, seed=7) as api, closing(Client(api.port)) as client:
        ends = Counter(client.outcome("/regions") for _ in range(30))
        for _ in range(50):
            assert client.call("/health").body == {"status": "ok"}
            assert client.call("/stats").status == 200
        expected = {
            "calls": 30,
            "failed": 30 - ends["200"],
            "failures": {kind: ends[kind] for kind in ("429", "500", "dropped")},
        }
        assert client.call("/stats").body == expected == api.stats()


def test_health_and_stats_never_fail() -> None:
    with gov_api.GovApi(fail=1.0, delay=60) as api, closing(Client(api.port)) as client:
        assert client.call("/health").status == 200
        assert client.call("/stats").body["calls"] == 0


def test_a_delay_is_kept() -> None:
    with gov_api.GovApi(delay=0.05) as api, closing(Client(api.port)) as client:
        start = time.monotonic()
        client.call("/regions?size=1")
        assert time.monotonic() - start >= 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"fail": 1.1},
        {"fail": -0.1},
        {"page_size": 0},
        {"page_size": 101},
        {"delay": -1},
        {"retry_after": -1},
        {"port": -1},
        {"port": 65536},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not|negative"):
        gov_api.GovApi(**wrong)


# Starting and ending.


def test_it_listens_on_loopback_only(api: Any) -> None:
    assert api.url == f"http://127.0.0.1:{api.port}"
    assert api._server.server_address[0] == "127.0.0.1"


def test_closing_cuts_waiting_calls_and_idle_connections_at_once() -> None:
    with (
        gov_api.GovApi(delay=60) as api,
        closing(socket.create_connection(("127.0.0.1", api.port), timeout=5)) as idle,
        closing(Client(api.port)) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(client.outcome, "/regions")
        while api.stats()["calls"] == 0:
            time.sleep(0.01)
        start = time.monotonic()
        api.close()
        assert time.monotonic() - start < 5
        assert waiting.result(5) == "dropped"
        assert idle.recv(1) == b""


def test_it_comes_back_on_the_same_port_and_goes_on_counting(api: Any, client: Client) -> None:
    port = api.port
    assert client.call("/regions").status == 200
    api.close()
    with pytest.raises(ConnectionError):
        client.call("/regions")
    with api, closing(Client(port)) as again:
        assert again.call("/regions").status == 200
        assert api.stats()["calls"] == 2


def test_it_is_quiet_unless_told(capfd: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with gov_api.GovApi(verbose=verbose) as api, closing(Client(api.port)) as client:
            client.call("/regions?size=1")
            # A client that goes away in the middle of a request is no news either.
            with closing(socket.create_connection(("127.0.0.1", api.port))) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                rude.sendall(b"GET /regions HTTP/1.1\r\n")
        out, err = capfd.readouterr()
        assert out == ""
        assert ("GET /regions?size=1" in err) is verbose
        assert "Traceback" not in err


def start_script(*options: str, port_file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), "--port", "0", "--port-file", str(port_file), *options],
        stderr=subprocess.PIPE,
    )


def await_port(port_file: Path, *, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 30
    while not port_file.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # The file is there only once it is whole.
    return int(port_file.read_text())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_script_serves_until_a_signal_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with start_script("--delay-ms", "60000", port_file=port_file) as process:
        try:
            port = await_port(port_file, process=process)
            with closing(Client(port)) as client:
                assert client.call("/health").body == {"status": "ok"}
                # A second one, from someone impatient, changes nothing.
                process.send_signal(number)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0
    assert err.decode() == f"http://127.0.0.1:{port} serves {PLACES} places\n"
    assert os.listdir(tmp_path) == ["port"]


def test_the_script_fails_as_the_class_does(tmp_path: Path) -> None:
    target = "/regions?page=2&size=5"
    port_file = tmp_path / "port"
    with start_script(
        "--fail", "0.5", "--seed", "7", "--page-size", "4", port_file=port_file
    ) as process:
        try:
            with closing(Client(await_port(port_file, process=process))) as client:
                ends = [client.outcome(target) for _ in range(20)]
                assert client.insist(target)["size"] == 4
        finally:
            process.terminate()
            process.communicate(timeout=10)
    decided = [gov_api.failure_of(target, nth=nth, seed=7, share=0.5) for nth in range(1, 21)]
    assert ends == [end or "200" for end in decided]


@pytest.mark.parametrize("options", [["--fail", "2"], ["--page-size", "0"], ["--port", "70000"]])
def test_the_script_refuses_settings_that_make_no_sense(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        gov_api.main(options)
    assert ended.value.code == 2
    assert "not" in capsys.readouterr().err


def test_the_script_says_that_a_port_is_taken(api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        gov_api.main(["--port", str(api.port)])
    assert ended.value.code == 2
    assert f"cannot listen on port {api.port}" in capsys.readouterr().err
