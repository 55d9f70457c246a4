"""Honest clients that offer HTTP/2 with each first request, as they do by default."""

import json
import shutil
import subprocess

import pytest

ROWS = json.dumps({"rows": [[171.5, 68.2, 33.0]]})
JAVA = """
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

class Post {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 3; i++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(args[0]))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(args[1]))
                .build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
"""


def scores(lines: str) -> list[float]:
    found = []
    for line in lines.splitlines():
        status, _, body = line.partition(" ")
        assert status == "200", line
        found += json.loads(body)["log_prob"]
    return found


@pytest.mark.skipif(shutil.which("java") is None, reason="needs a JDK")
def test_java_gets_its_answers(server, tmp_path):
    source = tmp_path / "Post.java"
    source.write_text(JAVA)
    command = [
        "java",
        "-XX:TieredStopAtLevel=1",
        str(source),
        f"{server}/v1/models/people/log_prob",
    ]
    done = subprocess.run(  # noqa: S603 - our own program
        [*command, ROWS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(scores(done.stdout)) == 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_gets_its_answers(server):
    url = f"{server}/v1/models/people/log_prob"
    common = ["-s", "-H", "Content-Type: application/json", "-d", ROWS, "-w", "\n%{http_code}\n"]
    command = ["curl", "--max-time", "20", "--http2", *common, url, url]
    done = subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, timeout=60, check=False
    )
    body, status, *_ = done.stdout.splitlines()
    assert (done.returncode, status) == (0, "200")
    assert len(json.loads(body)["log_prob"]) == 1
