"""A plugin of pytest: a line for each test in the file that OUTCOMES names, when it begins and when it has ended."""

import os

# Tests replace the environment.
outcomes = os.environ["OUTCOMES"]
worst = {}


def say(how, name):
    with open(outcomes, "a") as file:
        file.write(f"{how} {name}\n")


def pytest_runtest_logstart(nodeid):
    worst[nodeid] = "passed"
    say("began", nodeid)


def pytest_runtest_logreport(report):
    if report.failed:
        worst[report.nodeid] = "failed"
        # At once: a suite that is ended by its limit shows no summary.
        print(f"\n--- {report.nodeid} ({report.when})\n{report.longreprtext}", flush=True)
    elif report.skipped and worst[report.nodeid] == "passed":
        worst[report.nodeid] = "skipped"


def pytest_runtest_logfinish(nodeid):
    say(worst[nodeid], nodeid)


def pytest_collectreport(report):
    if report.failed:
        say("failed", f"{report.nodeid} (collection)")
