"""A worker on TCP answers who has the cluster's token: the gateway tells it to replicas of ours, and to nobody else."""

import json
import urllib.request
from typing import Any

from tests.gateway.conftest import KEY

from tokenworks.snapshot.sealing import internal_token, read_cluster_key


def test_replicas_are_told_the_clusters_token(gateway: Any) -> None:
    for model in ("ours", "assistant"):
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]}).encode()
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{gateway.url}/v1/chat/completions", body, headers)).close()
    told = [each.headers.get("Authorization") for each in gateway.upstream.seen]
    assert told == [f"Bearer {internal_token(read_cluster_key(gateway.directory / 'cluster.key'))}", None]
