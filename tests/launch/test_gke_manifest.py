"""launch/gke/render.sh against the API's own types and the rules that only the controllers know."""

import jsonschema
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
import pytest
import yaml

FLAGS = ("--config=configs/celebahq.py", '--x=("a & b", \\2, ${HOME}, @NAME@)', "--workdir=gs://bucket/run")
TPU = ("tpu", "ivae", "registry/introvae:tpu", "tpu-v5-lite-podslice")
GPU = ("gpu", "ivae", "registry/introvae:cuda", "nvidia-h100-80gb")


@pytest.fixture(scope="module")
def api():
    """A validator for the JobSet API with all of Kubernetes' types below it, from the models of its Python client.

    Fields that the API does not have are refused, as `kubectl apply` refuses them.
    """
    schema = JobsetV1alpha2JobSet.model_json_schema(by_alias=True)
    for name, part in schema["$defs"].items():
        if name.endswith(("Quantity", "IntOrString")):
            part.clear()
            part["type"] = ["integer", "number", "string"]
        elif part.get("properties"):
            part["additionalProperties"] = False
    schema["additionalProperties"] = False
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def render(launch):
    """A function that renders a manifest and gives it as read from YAML."""

    def render(*arguments, flags=FLAGS):
        result = launch("gke/render.sh", *arguments, "--", *flags)
        assert result.returncode == 0, result.stderr
        assert "#only" not in result.stdout
        return yaml.safe_load(result.stdout)

    return render


def job_of(manifest):
    (job,) = manifest["spec"]["replicatedJobs"]
    return job["template"]["spec"]


def main_of(manifest):
    (container,) = job_of(manifest)["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize(
    "arguments",
    [
        (*TPU, "4x4"),
        (*TPU, "2x4", "--spot", "--service-account=trainer"),
        (*GPU, "2x8"),
        (*GPU, "1x1", "--spot"),
    ],
    ids=["tpu", "tpu, one host, spot", "gpu", "gpu, one host, spot"],
)
def test_the_manifest_is_what_the_api_knows(render, api, arguments):
    manifest = render(*arguments)
    api.validate(manifest)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m["spec"].update(failurePolicies={}),
        lambda m: job_of(m).update(completions="four"),
        lambda m: job_of(m)["podFailurePolicy"]["rules"][0]["onExitCodes"].pop("operator"),
        lambda m: main_of(m).update(arguments=[]),
    ],
)
def test_the_check_sees_mistakes(render, api, spoil):
    manifest = render(*TPU, "4x4")
    spoil(manifest)
    with pytest.raises(jsonschema.ValidationError):
        api.validate(manifest)


@pytest.mark.parametrize(
    ("topology", "options", "hosts", "chips"),
    [
        ("1x1", (), 1, 1),
        ("2x2", (), 1, 4),
        ("2x4", (), 1, 8),
        ("2x4", ("--chips=4",), 2, 4),
        ("4x4", (), 4, 4),
        ("16x16", (), 64, 4),
        ("2x2x1", (), 1, 4),
        ("2x2x2", (), 2, 4),
    ],
)
def test_a_slice_has_a_pod_for_each_host(render, topology, options, hosts, chips):
    manifest = render(*TPU, topology, *options)
    job = job_of(manifest)
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", hosts, hosts)
    assert main_of(manifest)["resources"]["limits"] == {"google.com/tpu": chips}
    selector = job["template"]["spec"]["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-topology"] == topology


def test_machines_with_gpus_have_a_pod_each(render):
    manifest = render(*GPU, "2x8")
    assert job_of(manifest)["completions"] == 2
    assert main_of(manifest)["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert job_of(manifest)["template"]["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": GPU[-1]}


@pytest.mark.parametrize("arguments", [(*TPU, "4x4"), (*GPU, "4x8")], ids=["tpu", "gpu"])
def test_pods_find_the_first_one_by_its_name(render, arguments):
    manifest = render(*arguments)
    environment = {e["name"]: e["value"] for e in main_of(manifest)["env"]}
    (job,) = manifest["spec"]["replicatedJobs"]
    # JobSet's names: <jobset>-<replicated job>-<job index>-<pod index>.<subdomain, by default the jobset>
    host = f"{manifest['metadata']['name']}-{job['name']}-0-0.{manifest['metadata']['name']}"
    assert environment == {"JAX_COORDINATOR_ADDRESS": f"{host}:8476", "JAX_NUM_PROCESSES": "4"}
    assert manifest["spec"]["network"]["enableDNSHostnames"]


def test_one_host_is_not_joined_to_anything(render):
    assert "env" not in main_of(render(*TPU, "2x4"))


def test_status_1_fails_the_jobset_and_everything_else_starts_it_again(render):
    manifest = render(*TPU, "4x4", "--restarts=7")
    job, policy = job_of(manifest), manifest["spec"]["failurePolicy"]
    # The Job: one failed pod is enough. Status 1 has the reason PodFailurePolicy, all others BackoffLimitExceeded.
    assert job["backoffLimit"] == 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": main_of(manifest)["name"], "operator": "In", "values": [1]}
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # the API refuses a podFailurePolicy otherwise
    # The JobSet: the first rule that fits counts, and without one it restarts, up to maxRestarts.
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert policy["maxRestarts"] == 7


def test_flags_reach_the_training_letter_by_letter(render):
    assert main_of(render(*TPU, "4x4"))["args"] == list(FLAGS)


def test_spot_nodes_are_asked_for_and_tolerated(render):
    pod = job_of(render(*TPU, "4x4", "--spot"))["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert "cloud.google.com/gke-spot" in [t["key"] for t in pod["tolerations"]]
    assert "gke-spot" not in str(render(*TPU, "4x4"))


def test_a_workdir_that_dies_with_the_pods_is_warned_of(launch):
    result = launch("gke/render.sh", *GPU, "1x1", "--", "--config=c.py", "--workdir=/tmp/run")
    assert "warning: without --workdir=gs://" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*TPU, "4by4"), "TOPOLOGY 4by4: like 4x4"),
        ((*TPU, "4x4", "--chips=3"), "--chips=3"),
        ((*GPU, "8"), "HOSTSxGPUS 8"),
        (("gpu", "My_Run", "image", "nvidia-l4", "1x1"), "NAME My_Run"),
    ],
)
def test_what_cannot_work_is_refused(launch, arguments, words):
    result = launch("gke/render.sh", *arguments, "--", *FLAGS)
    assert result.returncode == 1
    assert words in result.stderr
    assert result.stdout == ""
