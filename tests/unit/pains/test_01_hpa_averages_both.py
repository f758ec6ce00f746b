"""Elsewhere one autoscaler averages stable and canary pods, so the canary's load shrinks the live version."""

from __future__ import annotations

from unit.pains.scenes import child, objects, of_kind, under_way


def test_each_revision_has_an_autoscaler_that_sees_its_own_pods_only() -> None:
    world = under_way(scaling={"min": 2, "max": 10})
    desired = objects(world.plan, world.spec)
    autoscalers, deployments = of_kind(desired, "HorizontalPodAutoscaler"), of_kind(desired, "Deployment")
    assert len(autoscalers) == len(deployments) == 2
    for name, autoscaler in autoscalers.items():
        assert autoscaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    selectors = [deployment["spec"]["selector"]["matchLabels"] for deployment in deployments.values()]
    pods = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in deployments.values()]
    for mine, selector in enumerate(selectors):
        chosen = [number for number, labels in enumerate(pods) if selector.items() <= labels.items()]
        assert chosen == [mine], "a selector that matches pods of the other revision"


def test_the_live_autoscaler_keeps_its_floor_whatever_share_the_candidate_has() -> None:
    for weight in (5, 50):
        world = under_way(weight=weight, scaling={"min": 4, "max": 10})
        live = world.status.live
        assert live is not None
        autoscalers = of_kind(objects(world.plan, world.spec), "HorizontalPodAutoscaler")
        assert autoscalers[child(live.revision)]["spec"]["minReplicas"] == 4
