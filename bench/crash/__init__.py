"""Crashes of the real server, by seed: killed under load it comes back, and every message's fate is checked.

    python -m bench.crash --rounds 20            # seeds 1 to 20
    python -m bench.crash --seed 17              # that one round again
    python -m bench.crash --seed 21 --rounds 400

A round is a folder, a server, a sink with providers of several tempers, and a load over SMTP. The server dies at
failpoints (`mta.testing.failpoints`) and at moments drawn by the seed: a worker, a signing helper, or all of it.
"""
