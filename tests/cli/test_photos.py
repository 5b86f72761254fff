"""Folders of photographs: formats that were left out of a build, EXIF's orientation."""
import json
import os
import struct
import zlib

from harness import VAE, path, read_json, test, vae

ALONE = os.path.join(os.path.dirname(VAE), "vae_alone")  # the same, built without WebP, TIFF and MPI
QUICK = ["--hidden", 2, "--latent", 1, "--epochs", 1, "--sample-every", 0, "--report=false", "--device", "cpu",
         "--threads", 1]


def put(name, data):
    os.makedirs(os.path.dirname(path(name)), exist_ok=True)
    with open(path(name), "wb") as file:
        file.write(data)


def png(width, height, rows, orientation=1):
    """A grey PNG file of these bytes, with EXIF that says so."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HH", orientation, 0)
    lines = b"".join(b"\0" + bytes(rows[y * width:(y + 1) * width]) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) +
            chunk(b"eXIf", exif) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


@test
def formats_left_out_are_named():
    put("left/a.webp", b"RIFF\x1c\0\0\0WEBPVP8L" + bytes(16))
    put("left/tiff/a.tif", b"II*\0" + bytes(16))
    for file, form, library in (("left/a.webp", "WebP", "libwebp"), ("left/tiff/a.tif", "TIFF", "libtiff")):
        says = f"{file}: is a {form} picture, and this program was built without {library}"
        vae("train", "--data", file, *QUICK, "--out", "none", code=1, says=says, program=ALONE)
        assert says not in vae("train", "--data", file, *QUICK, "--out", "none", code=3).err
        folder = os.path.dirname(file)
        if "tiff" in file:
            vae("train", "--data", folder, *QUICK, "--out", "none", code=1, says=says, program=ALONE)


@test
def orientation_is_kept_with_the_run():
    put("lying/a.png", png(2, 2, [1, 2, 3, 4], 6))
    put("upright/a.png", png(2, 2, [3, 1, 4, 2]))
    put("stored/a.png", png(2, 2, [1, 2, 3, 4]))

    def sha(run, *args):
        vae("train", *QUICK, "--out", run, *args)
        return read_json(run, "run.json")["data"]["sha256"]

    turned, ignored = sha("turned", "--data", "lying"), sha("ignored", "--data", "lying", "--exif", "ignore")
    assert turned == sha("upright-run", "--data", "upright") and ignored == sha("stored-run", "--data", "stored")
    assert turned != ignored
    assert read_json("turned", "config.json")["exif"] == "honour"
    assert read_json("ignored", "config.json")["exif"] == "ignore"
    # a run reads new data as it read its own: rows are the same where the files are
    for run in ("turned", "ignored"):
        said = vae("eval", run, "--json").json()
        assert said == {**vae("eval", run, "--data", "upright" if run == "turned" else "stored", "--json").json(),
                        "data": said["data"]}, said
    vae("train", "--resume", "--out", "ignored", "--epochs", 2, "-q")
    vae("train", "--resume", "--out", "ignored", "--epochs", 3, "--exif", "honour", code=2,
        says="it was trained on other data")
    # a run of a version that had no such option
    config = read_json("ignored", "config.json")
    del config["exif"]
    with open(path("ignored", "config.json"), "w") as file:
        json.dump(config, file)
    vae("train", "--resume", "--out", "ignored", "--epochs", 3, "-q")
    assert read_json("ignored", "run.json")["data"]["sha256"] == ignored
    assert read_json("ignored", "config.json")["exif"] == "ignore"
    vae("train", "--data", "digits", *QUICK, "--exif", "ignore", "--out", "none", code=2,
        says="--exif has no effect on digits")
