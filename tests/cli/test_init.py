"""Training that begins with another model's weights."""
import os
import shutil

from harness import TINY, metrics, newest, path, read_json, same_end, test, trained, vae

RATHER = ["--limit", "300", "--device", "cpu", "--threads", "1", "--batch-size", "32"]


def measured(run, data="digits"):
    return vae("eval", run, "--data", data, "--limit", "300", "--json", "--samples", "0").json()


@test
def init_from_goes_on_where_the_other_ended():
    """At a rate of next to nothing the weights stay: the first epoch measures what they are worth."""
    run = trained()
    vae("train", *RATHER, "--init-from", run, "--lr", "1e-30", "--epochs", 1, "--out", "init/still",
        says="beginning with the weights of run")
    still = [line for line in metrics("init/still") if line["split"] == "test"][0]
    known = [line for line in metrics(run) if line["split"] == "test"][-1]
    assert abs(still["elbo"] - known["elbo"]) < 0.3, (still, known)
    assert newest("init/still")["params"] == newest(run)["params"]
    # the optimizer is new: no step but its own, no moment but of these gradients
    assert still["step"] == 10 and newest("init/still")["adam_v"] != newest(run)["adam_v"]
    said = read_json("init/still", "run.json")["init"]
    config = read_json("init/still", "config.json")
    assert said == {"from": run, "sha256": config["init-weights"]} and len(said["sha256"]) == 64
    assert config["hidden"] == [16] and config["latent"] == 3
    assert read_json(run, "run.json")["init"] is None


@test
def init_from_takes_runs_checkpoints_and_files():
    run = trained()
    vae("export", run, "--out", "init/w.safetensors", "-q")
    vae("export", run, "--out", "init/w.npz", "--format", "npz", "-q")
    checkpoint = os.path.join(run, "checkpoints", sorted(os.listdir(path(run, "checkpoints")))[-1])
    ends = []
    for i, source in enumerate((run, checkpoint, "init/w.safetensors", "init/w.npz")):
        vae("train", *RATHER, "--init-from", source, "--epochs", 1, "--out", f"init/{i}", "-q")
        ends.append(newest(f"init/{i}")["params"])
    assert all(end == ends[0] for end in ends) and ends[0] != newest(run)["params"]


@test
def init_from_keeps_scales_and_classes():
    with open(path("init.csv"), "w") as file:
        file.write("a,b,kind\n")
        for i in range(64):
            file.write(f"{10 + i % 7},{-3 * (i % 5)},{'cat' if i % 2 else 'dog'}\n")
    with open(path("other.csv"), "w") as file:
        file.write("a,b,kind\n")
        for i in range(64):
            file.write(f"{20 + i % 3},{i % 4},dog\n")
    small = ["--hidden", "8", "--latent", "2", "--device", "cpu", "--threads", "1", "--epochs", "1"]
    vae("train", *small, "--data", "init.csv", "--label-column", "kind", "--likelihood", "gaussian",
        "--condition", "labels", "--out", "init/table", "-q")
    vae("train", "--device", "cpu", "--threads", "1", "--epochs", "1", "--data", "other.csv",
        "--label-column", "kind", "--init-from", "init/table", "--out", "init/other", "-q")
    a, b = newest("init/table"), newest("init/other")
    assert a["standard"] == b["standard"] and a["classes"] == b["classes"]
    with open(path("other.csv"), "a") as file:
        file.write("1,2,emu\n")
    vae("train", "--data", "other.csv", "--label-column", "kind", "--init-from", "init/table",
        "--out", "init/emu", code=3, says="class 'emu' is none of the model's 2")
    assert not os.path.exists(path("init/emu"))


@test
def init_from_is_resumed_without_the_source():
    run = trained()
    shutil.copytree(path(run), path("init/gone"))
    vae("train", *RATHER, "--init-from", "init/gone", "--epochs", 3, "--out", "init/whole", "-q")
    vae("train", *RATHER, "--init-from", "init/gone", "--epochs", 1, "--out", "init/part", "-q")
    shutil.rmtree(path("init/gone"))
    vae("train", "--resume", "--out", "init/part", "--epochs", 3, "-q")
    same_end("init/whole", "init/part")
    # nothing to go on from: it is read again, and must be what it was
    for name in os.listdir(path("init/part", "checkpoints")):
        os.remove(path("init/part", "checkpoints", name))
    vae("train", "--resume=auto", "--out", "init/part", code=4, says="init/gone")
    shutil.copytree(path("init/whole"), path("init/gone"))
    vae("train", "--resume=auto", "--out", "init/part", code=3, says="its weights are others")


@test
def init_from_refuses_another_model():
    run = trained()
    vae("train", *RATHER, "--init-from", run, "--latent", 4, "--out", "init/no", code=2,
        says="a model of --latent 3, not 4")
    vae("train", *TINY, "--init-from", run, "--init", "he", "--out", "init/no", code=2,
        says="--init has no effect")
    vae("train", *TINY, "--init-from", run, "--data", "sprites", "--out", "init/no", code=3,
        says="the model takes 28 x 28")
    vae("train", *TINY, "--init-from", "nowhere", "--out", "init/no", code=4, says="nowhere")
    vae("train", *TINY, "--init-weights", "00", "--out", "init/no", code=2, says="--init-from")
    assert not os.path.exists(path("init/no"))


@test
def init_from_takes_pictures_as_its_model_does():
    for name, sizes in {"seen": ((16, 16), (20, 16)), "new": ((16, 31), (18, 40))}.items():
        os.makedirs(path("init", name), exist_ok=True)
        for i, (height, width) in enumerate(sizes):
            with open(path("init", name, f"{i}.ppm"), "wb") as file:
                file.write(f"P6 {width} {height} 255\n".encode() + bytes(range(3 * height)) * width)
    vae("train", "--data", "init/seen", "--image-size", 8, "--image-channels", 1, "--hidden", 4, "--latent", 2, "--epochs", 1,
        "--out", "init/pictures", "-q")
    vae("train", "--data", "init/new", "--init-from", "init/pictures", "--epochs", 1, "--out", "init/more", "-q")
    config = read_json("init/more/config.json")
    assert (config["image-size"], config["image-channels"]) == (8, 1)
    vae("train", "--data", "init/new", "--init-from", "init/pictures", "--image-size", 6, "--out", "init/no", code=3,
        says="pictures of 6 x 6 (width x height), 1 channel; the model takes 8 x 8")


@test
def init_from_takes_colour_and_orientation_as_its_model_does():
    for name, kind, channels in (("coloured", "P6", 3), ("grey", "P5", 1)):
        os.makedirs(path("init", name), exist_ok=True)
        for i in range(3):
            with open(path("init", name, f"{i}.ppm"), "wb") as file:
                file.write(f"{kind} 4 4 255\n".encode() + bytes(range(i, 16 * channels + i)))
        vae("train", "--data", f"init/{name}", "--hidden", 4, "--latent", 2, "--epochs", 1, "--exif", "ignore",
            "--out", f"init/of-{name}", "-q")
    vae("export", "init/of-coloured", "--out", "init/of-coloured.npz", "-q")
    for model, data, says in (("of-coloured", "grey", "3 of 3 pictures are grey and become RGB, as the model has it"),
                              ("of-coloured.npz", "grey", "3 of 3 pictures are grey and become RGB, as the model has it"),
                              ("of-grey", "coloured", "3 of 3 pictures are in colour and become grey, as the model has")):
        vae("train", "--data", f"init/{data}", "--init-from", f"init/{model}", "--epochs", 1, "--out", "init/on",
            "--force", says=says)
        assert read_json("init/on/config.json")["exif"] == "ignore"
        assert vae("eval", "init/on", "--json").json()["n"] == 3
    vae("train", "--data", "init/grey", "--init-from", "init/of-grey", "--exif", "honour", "--epochs", 1, "--out",
        "init/on", "--force", "-q")
    assert read_json("init/on/config.json")["exif"] == "honour"
