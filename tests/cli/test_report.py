"""vae report, and the reports that training writes: read by Python's own parsers of HTML, XML, JSON
and base64; the decoder in the page is run here once more, in plain Python."""
import base64
import html.parser
import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import time
import xml.dom.minidom

from harness import TINY, VAE, WORK, metrics, path, read_json, test, trained, vae, write_npy
from test_pictures import read_png

VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(html.parser.HTMLParser):
    """Takes a page to pieces; whatever is not well-formed, or reaches out, is an error."""

    def __init__(self, name):
        super().__init__()
        self.stack, self.ids, self.scripts, self.headings = [], set(), {}, []
        self.images, self.figures, self.notes, self.rows, self.cells = [], [], [], {}, []
        self.text = ""
        with open(path(name), encoding="utf-8") as file:
            self.source = file.read()
        self.feed(self.source)
        self.close()
        assert self.stack == [], f"left open: {self.stack}"

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert len(given) == len(attrs), f"<{tag}>: an attribute twice"
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag} {name}>: a handler in an attribute"
            if name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
                assert value.startswith(("#", "data:")), f"<{tag} {name}> reaches out: {value[:60]}"
                assert value[0] != "#" or tag == "a"
        if "id" in given:
            assert given["id"] not in self.ids, f"id {given['id']} twice"
            self.ids.add(given["id"])
        if tag == "img":
            assert given["alt"] and given["src"].startswith("data:image/png;base64,")
            self.images.append(given)
        if tag == "data":
            self.figures.append(float(given["value"]))
        if tag not in VOID:
            self.stack.append((tag, given))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert tag not in VOID
        open_tag, given = self.stack.pop()
        assert open_tag == tag, f"</{tag}> closes <{open_tag}>"
        if tag == "tr" and len(self.cells) == 2:
            self.rows.setdefault(*self.cells)  # the options come last
        if tag == "tr":
            self.cells = []

    def handle_data(self, data):
        tag, given = self.stack[-1] if self.stack else ("", {})
        if tag in ("script", "style"):
            self.scripts[given.get("id", tag)] = data
            return
        self.text += data
        if tag in ("h1", "h2", "h3"):
            self.headings.append((tag, data))
        if tag == "p" and given.get("class") == "note":
            self.notes.append(data)
        if tag in ("th", "td") and data.strip():
            self.cells.append(data)

    def facts(self):
        return json.loads(self.scripts["facts"])

    def floats(self, name, half=False):
        data = base64.b64decode(self.scripts[name], validate=True)
        return struct.unpack(f"<{len(data) // 2}e" if half else f"<{len(data) // 4}f", data)


def check_page(name):
    page = Page(name)
    outside = re.findall(r"https?://[^\"' <]*", page.source)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}, set(outside)
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|\bimport\s*\(", page.source)
    assert "default-src 'none'" in page.source
    assert [h for h, _ in page.headings].count("h1") == 1
    assert page.source.startswith("<!DOCTYPE html>\n<html lang=\"en\">")
    assert "nan" not in page.scripts.get("facts", "")
    for chart in re.findall(r"<svg.*?</svg>", page.source, re.DOTALL):
        xml.dom.minidom.parseString(chart)
    for i, image in enumerate(page.images):
        with open(path("image.png"), "wb") as file:
            file.write(base64.b64decode(image["src"].split(",", 1)[1], validate=True))
        width, height, _, _ = read_png("image.png")
        assert (width, height) == (int(image["width"]), int(image["height"])), i
    return page


def report(run, *options):
    vae("report", run, "--out", "report-test.html", "--limit", 300, *options)
    return check_page("report-test.html")


# ---- the decoder, once more ----

ACTIVATIONS = {
    "relu": lambda x: max(x, 0.0),
    "tanh": math.tanh,
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    "leaky_relu": lambda x: x if x >= 0 else 0.01 * x,
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


def decode(page, z):
    facts = page.facts()
    weights, at, h = page.floats("weights", facts["half"]), 0, list(z)
    for i, (n_in, n_out) in enumerate(facts["layers"]):
        bias = at + n_in * n_out
        y = [weights[bias + o] + sum(w * v for w, v in zip(weights[at + o * n_in:at + (o + 1) * n_in], h))
             for o in range(n_out)]
        if i + 1 < len(facts["layers"]):
            y = [ACTIVATIONS[facts["activation"]](v) for v in y]
        elif facts["sigmoid"]:
            y = [1 / (1 + math.exp(-v)) for v in y]
        at, h = bias + n_out, y
    assert at == len(weights)
    return h


def decoded(run, rows):
    """What vae decode makes of the latents `rows`."""
    write_npy("report-z.npy", len(rows), len(rows[0]), [v for row in rows for v in row])
    vae("decode", run, "--latents", "report-z.npy", "--out", "report-x.npy", "--threads", "1")
    with open(path("report-x.npy"), "rb") as file:
        data = file.read()
    header = struct.unpack_from("<H", data, 8)[0]
    values = struct.unpack(f"<{(len(data) - 10 - header) // 4}f", data[10 + header:])
    d = len(values) // len(rows)
    return [values[i * d:(i + 1) * d] for i in range(len(rows))]


def check_decoder(page, run, most=1 / 255):
    z = page.facts()["z"]
    rows = [[round(4 * math.sin(7 * i + 3 * j) * 64) / 64 for j in range(z)] for i in range(3)]
    for row, expected in zip(rows, decoded(run, rows)):
        found = decode(page, row)
        assert len(found) == len(expected)
        worst = max(abs(a - b) for a, b in zip(found, expected))
        assert worst <= most, worst


# ---- tests ----

@test
def report_of_a_run():
    run = trained()
    page = report(run)
    lines = metrics(run)
    last = [line for line in lines if line["split"] == "test"][-1]
    for value, key in zip(page.figures, ("elbo", "recon", "kl")):
        assert abs(value - last[key]) <= 1e-6 * abs(value), (value, last[key])
    assert "300 test examples after epoch 3" in page.text and "not binarized" in page.text
    assert page.notes == []
    assert len(page.images) == 4 + 3  # samples (two ways), reconstructions, interpolations; three latents
    config = read_json(run, "config.json")
    for name in ("latent", "epochs", "batch-size", "lr", "data", "activation"):
        assert page.rows[name] == str(config[name]), name
    about = read_json(run, "run.json")
    assert page.rows["training set's SHA-256"] == about["data"]["sha256"]
    assert page.rows["device"] == about["device"] and page.rows["host"] == about["host"]["name"]
    assert page.rows["CPU"] == about["host"]["cpu"]
    assert page.rows["instruction sets"] == about["host"]["instructions"]
    assert page.rows["rows to validate"] == "30"
    charts = [title for title in ("ELBO", "Reconstruction", "KL", "Rate and distortion",
                                  "KL of each latent", "Speed") if f"<title>{title}</title>" in page.source]
    assert len(charts) == 6, charts
    assert page.source.count(">validation</text>") == 4


@test
def report_curves_hold_the_metrics():
    run = trained()
    page = report(run)
    lines = metrics(run)
    chart = re.search(r"<svg[^>]*><title>ELBO</title>.*?</svg>", page.source, re.DOTALL).group()
    area = [float(v) for v in re.search(r'data-area="([^"]*)"', chart).group(1).split()]
    x0, x1, y0, y1 = (float(v) for v in re.search(r'data-range="([^"]*)"', chart).group(1).split())
    curves = re.findall(r'<path class="vp-p s(\d)" d="([^"]*)"', chart)
    assert [c for c, _ in curves] == ["0", "1", "2"]
    for (_, d), split in zip(curves, ("train", "validation", "test")):
        expected = [(line["epoch"], line["elbo"]) for line in lines if line["split"] == split]
        points = [tuple(map(float, p.split())) for p in re.findall(r"M([^h]*)h0", d)]
        assert len(points) == len(expected)
        for (px, py), (epoch, elbo) in zip(points, expected):
            x = x0 + (px - area[0]) / (area[2] - area[0]) * (x1 - x0)
            y = y1 - (py - area[1]) / (area[3] - area[1]) * (y1 - y0)
            assert abs(x - epoch) < 0.01 * (x1 - x0) and abs(y - elbo) < 0.005 * (y1 - y0)


@test
def report_agrees_with_eval_and_encode():
    run = trained()
    page = report(run)
    facts = page.facts()
    found = vae("eval", run, "--limit", 300, "--json").json()
    for a, b in zip(facts["kl"], found["kl_per_dim"]):
        assert abs(a - b) < 1e-3 * (1 + b)
    assert page.figures[3] == found["active_units"]
    assert abs(page.figures[4] - found["psnr"]) < 1e-4 * found["psnr"]
    kl = [facts["kl"][j] for j in facts["order"]]
    assert kl == sorted(kl, reverse=True)
    vae("encode", run, "--out", "report-mu.npy", "--limit", 300, "--threads", 1)
    with open(path("report-mu.npy"), "rb") as file:
        data = file.read()
    mu = struct.unpack(f"<{300 * 3}f", data[-300 * 3 * 4:])
    assert page.floats("mu") == mu and facts["row"] == list(range(300)) and len(facts["label"]) == 300
    for k in range(2):  # the plane: orthonormal axes
        for m in range(2):
            product = sum(facts["axis"][k * 3 + j] * facts["axis"][m * 3 + j] for j in range(3))
            assert abs(product - (k == m)) < 1e-5


@test
def report_decoder_is_the_models():
    vae("train", *TINY, "--epochs", 1, "--out", "report-act", "--hidden", "24,12", "--decoder-hidden",
        "8,20,16", "--activation", "gelu")
    for activation in re.search(r"--activation (\S+)", vae("train", "--help").out).group(1).split("|"):
        vae("train", *TINY, "--epochs", 1, "--out", "report-act", "--force", "--activation", activation)
        assert os.path.exists(path("report-act", "report.html"))
        page = check_page("report-act/report.html")
        assert page.facts()["activation"] == activation and page.facts()["half"]
        check_decoder(page, "report-act")
    for likelihood in ("gaussian", "gaussian-learned", "gaussian --mean sigmoid"):
        vae("train", *TINY, "--epochs", 1, "--out", "report-act", "--force", "--likelihood", *likelihood.split(),
            "--hidden", "12,8", "--decoder-hidden", "4,6,8")
        page = check_page("report-act/report.html")
        assert page.facts()["layers"] == [[3, 4], [4, 6], [6, 8], [8, 784]]
        assert "density" in page.text
        check_decoder(page, "report-act")


@test
def report_says_how_x_was_taken():
    for binarize, words in (("threshold", "threshold of 1/2"), ("static", "once, at random"),
                            ("dynamic", "anew at each use")):
        vae("train", *TINY, "--epochs", 1, "--out", "report-bin", "--force", "--binarize", binarize)
        assert words in check_page("report-bin/report.html").text, binarize


@test
def report_of_a_checkpoint_alone():
    run = trained()
    shutil.copy(path(run, "checkpoints", sorted(os.listdir(path(run, "checkpoints")))[-1]), path("alone.vae"))
    page = report("alone.vae")  # its data, digits, are built in
    assert len(page.notes) == 2, page.notes
    assert "metrics.jsonl" in page.notes[0] and "run.json" in page.notes[1]
    assert page.headings[0] == ("h1", "alone.vae") and len(page.figures) == 5
    inside = report(path(run, "checkpoints", "best.vae"))
    assert inside.notes == [] and "<title>ELBO</title>" in inside.source
    os.remove(path("report-test.html"))
    vae("report", "alone.vae")
    check_page("report.html")


def tabular(name, n=120, d=5):
    return write_npy(name, n, d, [math.sin(1.7 * i + j) * (1 + j) for i in range(n) for j in range(d)])


@test
def report_of_data_that_are_no_pictures():
    tabular("table.npy")
    vae("train", "--data", "table.npy", "--likelihood", "gaussian", "--hidden", "8", "--latent", "2",
        "--epochs", 2, "--out", "report-table", "--threads", 1, "--device", "cpu")
    page = check_page("report-table/report.html")
    assert page.images == [] and len(page.notes) == 1 and "no pictures" in page.notes[0]
    facts = page.facts()
    assert not facts["picture"] and not facts["half"] and facts["layers"][-1] == [8, 5]
    assert "values as they are" in page.text
    assert facts["axis"] == [1, 0, 0, 1] and facts["mean"] == [0, 0] and "label" not in facts
    check_decoder(page, "report-table", 1e-5)


@test
def report_of_a_table():
    with open(path("named.csv"), "w", encoding="utf-8") as file:
        file.write('a,"b<\u00e9",c\n')
        file.writelines(f"{i % 40},{i * 7 % 45},{i * 3 % 50}\n" for i in range(80))
    vae("train", "--data", "named.csv", "--likelihood", "gaussian", "--hidden", "8", "--latent", "2",
        "--epochs", 2, "--out", "report-named", "--threads", 1, "--device", "cpu")
    page = check_page("report-named/report.html")
    facts = page.facts()
    assert "after standardizing each column" in page.text
    assert facts["columns"] == ["a", "b<\u00e9", "c"]
    assert abs(facts["shift"][0] - 19.5) < 1e-4 and len(facts["scale"]) == 3
    expected = decoded("report-named", [[0.5, -0.25]])[0]
    for i, value in enumerate(decode(page, [0.5, -0.25])):
        assert abs(value * facts["scale"][i] + facts["shift"][i] - expected[i]) < 1e-3


@test
def report_without_its_data():
    tabular("lost.npy")
    vae("train", "--data", "lost.npy", "--likelihood", "gaussian", "--hidden", "8", "--latent", "1",
        "--epochs", 1, "--out", "report-lost", "--threads", 1, "--device", "cpu")
    assert len(check_page("report-lost/report.html").notes) == 1
    os.remove(path("lost.npy"))
    result = vae("report", "report-lost", says="without data: lost.npy")
    page = check_page("report-lost/report.html")
    assert sum("lost.npy" in note for note in page.notes) == 2 and "mu" not in page.scripts
    assert "kl" not in page.facts() and result.out == ""
    check_decoder(page, "report-lost", 1e-5)
    # what was asked for must be there
    vae("report", "report-lost", "--data", "lost.npy", code=4, says="lost.npy")
    vae("report", "report-lost", "--split", "test", code=4, says="lost.npy")
    vae("report", "report-lost", "--data", "digits", code=3, says="784 columns")


@test
def report_leaves_out_a_decoder_that_is_too_large():
    tabular("wide.npy", 8, 2)
    vae("train", "--data", "wide.npy", "--likelihood", "gaussian", "--hidden", "2", "--latent", "2",
        "--decoder-hidden", "2100,2100", "--epochs", 1, "--batch-size", 8, "--keep", 1, "--out", "report-wide",
        "--threads", 1, "--device", "cpu")
    page = check_page("report-wide/report.html")
    assert any("explorer is left out" in note for note in page.notes), page.notes
    assert "weights" not in page.scripts and "script" not in page.scripts and len(page.source) < 200000
    found = vae("report", "report-wide", "--json").json()
    assert found["explorer"] == {"included": False, "weight_bytes": 0, "format": None}
    shutil.rmtree(path("report-wide"))


@test
def report_escapes_names():
    name = "a'b\"<script>alert(1)<&amp;>"
    data, run = os.path.join(name, "</script><b>.npy"), os.path.join(name, "</script><i>run & \u00e9")
    os.makedirs(path(os.path.dirname(data)))
    tabular(data)
    vae("train", "--data", data, "--likelihood", "gaussian", "--hidden", "4", "--latent", "2", "--epochs", 1,
        "--out", run, "--threads", 1, "--device", "cpu")
    page = check_page(os.path.join(run, "report.html"))
    assert page.headings[0] == ("h1", "script><i>run & \u00e9")  # the last part of the path
    assert page.rows["data"] == data and page.rows["out"] == run
    os.rename(path(data), path("gone.npy"))
    vae("report", run)
    page = check_page(os.path.join(run, "report.html"))
    assert any(data in note for note in page.notes)
    shutil.rmtree(path(name))


@test
def report_output():
    run = trained()
    few = ("--limit", 50)
    found = vae("report", run, *few, "--out", "r.html", "--json")
    about = found.json()
    assert found.err == "" and about["out"] == "r.html" and about["data"] is True
    assert about["bytes"] == os.path.getsize(path("r.html"))
    assert about["explorer"] == {"included": True, "weight_bytes": 2 * (3 * 16 + 16 + 16 * 784 + 784),
                                 "format": "float16"}
    quiet = vae("report", run, *few, "--out", "r.html", "-q")
    assert quiet.out == quiet.err == ""
    assert vae("report", run, *few, says="run/report.html: report of").out == ""
    out = vae("report", run, *few, "--out", "-")
    assert out.out.startswith("<!DOCTYPE html>") and out.out.endswith("</html>\n") and out.err == ""
    vae("report", run, "--out", "-", "--json", code=2, says="--json has standard output")
    vae("report", run, *few, "--out", "nowhere/r.html", code=4, says="nowhere/r.html")
    vae("report", run, *few, "--out", run, code=4, says="is a folder")
    vae("report", "nothing-here", code=4, says="nothing-here")
    vae("report", code=2, says="RUN is missing")
    one = vae("report", run, "--limit", 1, "--split", "train", "--out", "r.html", "--json").json()
    page = check_page("r.html")
    assert one["data"] is True and page.facts()["points"] == 1 and len(page.images) == 2 + 3  # no pairs


@test
def report_is_the_same_for_any_number_of_threads():
    run = trained()
    pages = []
    for threads in (1, 2):
        vae("report", run, "--limit", 600, "--out", "threads.html", "--threads", threads)
        with open(path("threads.html")) as file:
            pages.append(re.sub(r"on \d{4}-\d\d-\d\d \d\d:\d\d UTC", "", file.read()))
    assert pages[0] == pages[1]


@test
def report_of_training_changes_nothing():
    options = ["train", *TINY, "--epochs", 3, "--validation", "0.1"]
    with_report = vae(*options, "--out", "report-on", "--json").json()
    without = vae(*options, "--out", "report-off", "--report=false", "--json").json()
    assert with_report["report"] == "report-on/report.html" and without["report"] is None
    assert not os.path.exists(path("report-off", "report.html"))
    assert metrics("report-on") == metrics("report-off")
    digests = [vae("info", run, "--json").json()["weights_sha256"] for run in ("report-on", "report-off")]
    assert digests[0] == digests[1]
    assert "report=false" in vae("train", "--help").out
    vae("train", "--resume", "--out", "report-off", "--epochs", 4, "--report=true", says="report-off/report.html")
    assert check_page("report-off/report.html").rows["status"] == "done"


@test
def report_of_an_interrupted_run():
    process = subprocess.Popen([VAE, "train", *TINY, "--epochs", "100000", "--out", "report-cut", "-q"],
                               cwd=WORK, stderr=subprocess.PIPE)
    end = time.time() + 60
    while time.time() < end:
        if os.path.exists(path("report-cut", "metrics.jsonl")) and len(metrics("report-cut")) > 3:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == -signal.SIGINT, err
    page = check_page("report-cut/report.html")
    assert page.rows["status"] == "interrupted" and "interrupted in epoch" in page.rows["error"]
    assert len(page.figures) == 5
