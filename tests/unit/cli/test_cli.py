"""What the command line shows, from statuses that the state machine itself wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from serinus.api.status import Phase
from serinus.cli import advice, explain, history, main, view
from serinus.cli.picture import CliError, Picture
from serinus.objects.context import Context, Object
from serinus.objects.read import Children
from serinus.objects.render import render
from serinus.release.observed import Failure
from unit.release.world import NAME, World, settled, spec, with_live

ROOT = Path(__file__).parents[3]


def picture(world: World) -> Picture:
    """What the cluster would show of a world."""
    context = Context("shop", NAME, "uid", world.spec)
    objects: list[Object] = render(context, world.plan, Children()).apply
    for obj in objects:
        if obj["kind"] == "Deployment":
            revision = obj["metadata"]["name"].rpartition("-")[2]
            obj["spec"]["replicas"] = world.ready.get(revision, 0)
            obj["status"] = {"readyReplicas": 0 if revision in world.unready else world.ready.get(revision, 0)}
    owner = {
        "metadata": {"name": NAME, "namespace": "shop", "generation": world.generation, "uid": "uid"},
        "spec": world.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True),
        "status": world.status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    events = tuple(
        {"reason": note.reason, "note": note.message, "eventTime": world.now.isoformat(), "metadata": {}}
        for note in world.notes
    )
    return Picture(owner, Children(objects), events, world.now)


def under_way() -> World:
    world = with_live()
    world.apply(spec("v2"))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    for _ in range(4):
        world.tick()
    return world


def test_status_shows_both_revisions_their_weights_and_where_the_release_is() -> None:
    shown = "\n".join(view.lines(picture(under_way())))
    live = next(line for line in shown.splitlines() if line.startswith("live"))
    candidate = next(line for line in shown.splitlines() if line.startswith("candidate"))
    assert "v1" in live
    assert "95%" in live
    assert "v2" in candidate
    assert "5%" in candidate
    assert "[5%] > 50% > 100%" in shown
    assert "of 20s" in shown
    assert "WeightChanged" in shown


def test_status_shows_steps_of_other_kinds_and_what_they_found() -> None:
    smoked = spec("v2", release={"steps": [{"smokeTest": {"requests": 5}}, {"weight": 5, "hold": "20s"}]})
    world = with_live()
    world.apply(smoked)
    world.run(lambda w: w.status.release is not None and w.status.release.phase is Phase.TESTING)
    for _ in range(2):
        world.tick()
    shown = "\n".join(view.lines(picture(world)))
    assert "[smokeTest] > 5% > 100%" in shown
    assert "smokeTest: state Running, attempt 1" in shown


def test_status_of_a_settled_one_tells_how_the_last_release_ended() -> None:
    world = under_way()
    world.error_rate[world.target().name] = 0.5
    world.run(settled)
    shown = "\n".join(view.lines(picture(world)))
    assert "last release   v2: RolledBack" in shown
    assert "ErrorRateTooHigh" in shown
    assert "stalled" in shown


def test_status_before_anything_is_live() -> None:
    world = World(spec("v1"))
    assert any("nothing is live yet" in line for line in view.lines(picture(world)))


def test_history_has_every_kept_revision_with_the_verdict_it_got() -> None:
    world = under_way()
    world.run(settled)
    world.apply(spec("v3"))
    world.run(lambda w: w.status.release is not None and w.status.release.weight == 5)
    world.error_rate[world.target().name] = 0.5
    shown = picture(world)
    by_version = {row["version"]: row for row in history.entries(shown)}
    assert by_version["v2"]["role"] == "live"
    assert by_version["v2"]["outcome"] == "Promoted"
    assert by_version["v3"]["role"] == "candidate"
    assert by_version["v2"]["digest"].startswith("sha256:")
    assert len(history.rows(shown)) == len(by_version) + 1
    json.dumps(history.entries(shown))


def test_diff_shows_what_changed_and_nothing_else() -> None:
    world = under_way()
    shown = picture(world)
    text = history.diff(history.find(shown, "live"), history.find(shown, "candidate"))
    changed = [line for line in text.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert {line[1:].split(":")[0].strip() for line in changed} == {"digest", "uri", "version"}
    assert history.diff(history.find(shown, "v1"), history.find(shown, "v1")) == ""
    with pytest.raises(CliError, match="there are v1, v2"):
        history.find(shown, "v9")


@pytest.mark.parametrize("reason", sorted({*explain._ADVICE, *advice.STEPS_AND_GATES}))
def test_advice_is_for_reasons_that_the_operator_gives(reason: str) -> None:
    operator = ROOT / "operator" / "serinus"
    said = [
        path
        for path in sorted(operator.rglob("*.py"))
        if "cli" not in path.relative_to(operator).parts and f'"{reason}"' in path.read_text()
    ]
    runtime = ROOT / "runtime-image" / "serinus_runtime"
    assert said or any(reason in path.read_text() for path in sorted(runtime.glob("*.py")))


def test_nothing_to_explain_where_all_is_well() -> None:
    assert explain.findings(picture(with_live())) == []


@pytest.mark.parametrize("reason", ["DigestMismatch", "CrashLoop", "OOMKilled", "ImagePullBackOff"])
def test_a_failed_release_is_explained(reason: str) -> None:
    world = with_live()
    world.apply(spec("v2"))
    world.failures[world.target().name] = Failure(reason, "the pod's own words")
    world.run(settled)
    (found,) = explain.findings(picture(world))
    assert found.symptom.startswith(f"{reason}: ")
    assert "the pod's own words" in found.symptom
    assert found.cause
    assert found.action


@pytest.mark.parametrize(("errors", "slow", "reason"), [(0.5, 0.0, "ErrorRateTooHigh"), (0.0, 0.5, "LatencyTooHigh")])
def test_a_verdict_is_explained_with_an_action_of_its_own(errors: float, slow: float, reason: str) -> None:
    world = under_way()
    world.error_rate[world.target().name] = errors
    world.slow_rate[world.target().name] = slow
    world.run(settled)
    (found,) = explain.findings(picture(world))
    assert found.symptom.startswith(reason)
    assert "kubectl describe mdep" not in found.action, "advice of its own, not the general one"


def test_silence_is_explained() -> None:
    world = under_way()
    world.prometheus_down = True
    world.tick()
    assert [each.symptom.split(":")[0] for each in explain.findings(picture(world))] == ["EvidenceMissing"]


@pytest.mark.parametrize("reason", sorted(advice.STEPS_AND_GATES))
def test_reasons_of_steps_and_gates_have_advice_of_their_own(reason: str) -> None:
    world = under_way()
    assert world.status.release is not None
    release = world.status.release.model_copy(update={"reason": reason, "message": "the words of the step"})
    world.status = world.status.model_copy(update={"release": release})
    found = next(each for each in explain.findings(picture(world)) if each.symptom.startswith(reason))
    assert "the words of the step" in found.symptom
    assert found.cause != "see the message"
    assert "NAME" not in found.action


def test_lost_readiness_is_explained_while_it_lasts_and_afterwards() -> None:
    world = under_way()
    world.run(lambda w: settled(w) and w.live() == "v2")
    world.lost[world.target().name] = {"pod-0": world.now, "pod-1": world.now}
    world.tick()
    found = next(each for each in explain.findings(picture(world)) if each.symptom.startswith("ReadinessLost"))
    assert "the live version v2 has had too few ready pods since 2026-11-21" in found.symptom
    world.run(lambda w: settled(w) and w.live() == "v1")
    (found,) = explain.findings(picture(world))
    assert "version v2: 0 of 2 pods are ready" in found.symptom
    assert "reason=Unhealthy" in found.action


def test_an_operator_that_does_not_run_is_noticed() -> None:
    world = with_live()
    world.apply(spec("v2"))
    (found,) = explain.findings(picture(world))
    assert "the operator has seen generation 1 of 2" in found.symptom


def test_render_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["render", "-f", str(ROOT / "docs/reference/every-field.yaml")]) == main.OK
    kinds = [obj["kind"] for obj in yaml.safe_load_all(capsys.readouterr().out)]
    assert {"Deployment", "Service", "HTTPRoute", "HorizontalPodAutoscaler"} <= set(kinds)


def test_render_tells_every_complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("kind: ModelDeployment\nspec: {model: {uri: 's3://x', digest: y}}\n")
    assert main.main(["render", "-f", str(path)]) == main.FAILED
    said = capsys.readouterr().err
    assert "spec.model.uri" in said
    assert "spec.model.digest" in said


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["promote"])
    assert caught.value.code == main.USAGE
    assert "name" in capsys.readouterr().err


def test_no_cluster_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    assert main.main(["status", "x"]) == main.FAILED
    assert capsys.readouterr().err.startswith("error: no cluster:")
