"""What faults are planted in, and which tests are about what: the most specific first, then the wider ones."""

# (name, share, sources)
GROUPS = [
    ("parsers", 60, ["host/dataset/*.c", "host/format/*.c"]),
    ("run", 35, ["host/run/*.c"]),
    ("train", 40, ["host/train/*.c"]),
    ("model", 30, ["host/model/*.c", "host/backend/cpu/*.c"]),
    ("kernels", 35, ["kernels/*.cu", "host/backend/cuda/*.c"]),
]

SETS = ["unit dataset", "unit formats", "unit npy"]
RUNS = ["unit resume", "unit checkpoint", "unit trainer", "unit libvae"]
STEP = ["unit model", "unit gradients", "unit determinism", "unit trainer"]
CPU = ["unit ops", "unit ops_loss", "unit ops_classes", "unit ops_conv", "unit matmul", *STEP, "unit score"]
KERNELS = ["simt ops", "simt ops_loss", "simt ops_classes", "simt ops bf16", "simt ops_loss bf16"]
STEPS = ["simt gradients", "simt whole", "simt model", "simt gradients bf16"]

# (pattern of a source, tests); the first that fits
TESTS = [
    ("host/format/npy.c", ["unit npy", "unit dataset", "unit formats", "unit export", "fuzz fuzz_npy fuzz_npz",
                           "cli data"]),
    ("host/format/npz.c", ["unit formats", "unit import", "fuzz fuzz_npz fuzz_dataset", "cli data"]),
    ("host/format/npz_write.c", ["unit export", "unit import", "unit formats"]),
    ("host/format/safetensors.c", ["unit import", "unit export", "unit libvae", "fuzz fuzz_safetensors fuzz_model"]),
    ("host/format/*.c", ["unit export", "unit import"]),
    ("host/dataset/csv.c", ["unit formats", "fuzz fuzz_csv fuzz_dataset", "cli tables"]),
    ("host/dataset/idx.c", [*SETS, "fuzz fuzz_idx fuzz_dataset", "cli data"]),
    ("host/dataset/np[yz].c", ["unit npy", *SETS, "fuzz fuzz_npy fuzz_dataset", "cli data"]),
    ("host/dataset/classes.c", ["unit classes", "unit formats", "fuzz fuzz_csv fuzz_dataset"]),
    ("host/dataset/closest.c", ["unit probe", "unit latent_walk"]),
    ("host/dataset/pictures.c", ["unit formats", "unit image", "cli photos"]),
    ("host/dataset/folder.c", ["unit formats", "cli photos", "cli splits"]),
    ("host/dataset/cache.c", ["cli photos", "fuzz fuzz_cache"]),
    ("host/dataset/sprites.c", ["unit sprites"]),
    ("host/dataset/*.c", [*SETS, "unit sprites", "unit trainer", "fuzz fuzz_dataset", "cli data"]),
    ("host/run/checkpoint*.c", ["unit checkpoint", "unit resume", "unit trainer", "fuzz fuzz_checkpoint fuzz_model",
                                "cli trust", "cli tables"]),
    ("host/run/*.c", ["unit resume", "unit trainer", "fuzz fuzz_run", "cli trust", "cli program"]),
    ("host/train/board.c", ["unit resume", "unit trainer", "fuzz fuzz_events", "cli tensorboard"]),
    ("host/train/*.c", ["unit resume", "unit trainer", "unit libvae", "unit determinism", "cli splits",
                        "cli trust", "cli program"]),
    ("host/model/layout.c", ["unit layout", *STEP, "unit import"]),
    ("host/model/classes.c", ["unit ops_classes", *STEP]),
    ("host/model/*.c", [*STEP, "unit layout", "unit score", "unit libvae"]),
    ("host/backend/cpu/conv.c", ["unit ops_conv", *STEP]),
    ("host/backend/cpu/*.c", CPU),
    ("kernels/*conv.cu", ["simt ops_conv", "simt ops_conv bf16", *STEPS]),
    ("kernels/classes.cu", ["simt ops_classes", *STEPS]),
    ("kernels/*.cu", [*KERNELS, *STEPS, "simt gradients fp32 whole-steps"]),
    ("host/backend/cuda/conv.c", ["simt ops_conv", "simt ops_conv bf16", *STEPS]),
    ("host/backend/cuda/*.c", [*KERNELS, "simt ops_conv", *STEPS, "simt gradients fp32 whole-steps",
                               "program failures", "program parity"]),
]

# Survivors that were looked at: number: why no test is to catch it.
EXPLAINED = {}
