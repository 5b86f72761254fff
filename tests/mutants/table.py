"""What faults are planted in, and which tests are about what: the most specific first, then the wider ones."""

# (name, share, sources)
GROUPS = [
    ("parsers", 60, ["host/dataset/*.c", "host/format/*.c"]),
    ("run", 35, ["host/run/*.c"]),
    ("train", 40, ["host/train/*.c"]),
    ("model", 30, ["host/model/*.c", "host/backend/cpu/*.c"]),
    ("kernels", 35, ["kernels/*.cu", "host/backend/cuda/*.c"]),
]

SETS = ["unit mapped", "unit dataset", "unit formats", "unit npy"]
RUNS = ["unit resume", "unit checkpoint", "unit trainer", "unit libvae"]
STEP = ["unit model", "unit gradients", "unit determinism", "unit trainer"]
CPU = ["unit ops", "unit ops_loss", "unit ops_classes", "unit ops_conv", "unit matmul", *STEP, "unit score",
       "unit ops bf16", "unit ops_loss bf16"]
KERNELS = ["simt ops", "simt ops_loss", "simt ops_classes", "simt ops bf16", "simt ops_loss bf16"]
STEPS = ["simt model", "simt gradients", "simt gradients bf16"]
WHOLE = ["simt whole", "simt whole bf16", "simt gradients fp32 whole-steps"]

# (pattern of a source, tests); the first that fits
TESTS = [
    ("host/format/npy.c", ["unit npy", "unit dataset", "unit formats", "unit export", "fuzz fuzz_npy fuzz_npz",
                           "cli data"]),
    ("host/format/npz.c", ["unit formats", "unit import", "fuzz fuzz_npz fuzz_dataset", "cli data"]),
    ("host/format/npz_write.c", ["unit export", "unit import", "unit formats"]),
    ("host/format/safetensors.c", ["unit import", "unit export", "unit libvae", "fuzz fuzz_safetensors fuzz_model"]),
    ("host/format/tfevents.c", ["unit tfevents", "fuzz fuzz_events"]),
    ("host/format/protobuf.c", ["unit tfevents", "unit export", "roundtrip models"]),
    ("host/format/onnx.c", ["unit export", "roundtrip models"]),
    ("host/format/*.c", ["unit export", "unit import"]),
    ("host/dataset/csv.c", ["unit formats", "fuzz fuzz_csv fuzz_dataset", "cli tables"]),
    ("host/dataset/idx.c", [*SETS, "fuzz fuzz_idx fuzz_dataset", "cli data"]),
    ("host/dataset/np[yz].c", ["unit npy", *SETS, "fuzz fuzz_npy fuzz_dataset", "cli data"]),
    ("host/dataset/classes.c", ["unit classes", "unit formats", "fuzz fuzz_csv fuzz_dataset"]),
    ("host/dataset/closest.c", ["unit mapped", "unit probe", "unit latent_walk"]),
    ("host/dataset/pictures.c", ["unit formats", "unit image", "cli photos"]),
    ("host/dataset/folder.c", ["unit formats", "cli photos", "cli splits"]),
    ("host/dataset/cache.c", ["cli photos", "fuzz fuzz_cache"]),
    ("host/dataset/sprites.c", ["unit sprites"]),
    ("host/dataset/*.c", [*SETS, "unit sprites", "unit trainer", "fuzz fuzz_dataset", "cli data"]),
    ("host/run/checkpoint*.c", ["unit checkpoint", "unit resume", "unit trainer", "fuzz fuzz_checkpoint fuzz_model",
                                "cli trust", "cli tables"]),
    ("host/run/*.c", ["unit resume", "unit trainer", "fuzz fuzz_run", "cli trust", "cli program"]),
    ("host/train/board.c", ["unit resume", "unit trainer", "unit tfevents", "fuzz fuzz_events", "cli tensorboard"]),
    ("host/train/follow.c", ["cli ranks"]),
    ("host/train/step_timer.c", ["unit trainer", "cli bench"]),
    ("host/train/*.c", ["unit resume", "unit trainer", "unit libvae", "unit determinism", "cli splits",
                        "cli trust", "cli program"]),
    ("host/model/layout.c", ["unit layout", *STEP, "unit import"]),
    ("host/model/classes.c", ["unit ops_classes", *STEP]),
    ("host/model/*.c", [*STEP, "unit layout", "unit score", "unit libvae"]),
    ("host/backend/cpu/conv.c", ["unit ops_conv", "unit ops_conv bf16", *STEP]),
    ("host/backend/cpu/patches.c", ["unit ops_conv", *STEP]),
    ("host/backend/cpu/winograd.c", ["unit ops_conv", *STEP]),
    ("host/backend/cpu/sparse.c", ["unit sparse", *CPU]),
    ("host/backend/cpu/tiles_tn.c", ["unit tiles", *CPU]),
    ("host/backend/cpu/matmul_bf16.c", ["unit matmul", "unit tiles", *CPU]),
    ("host/backend/cpu/m*.c", ["unit matmul", *CPU]),
    ("host/backend/cpu/classes.c", ["unit ops_classes", *STEP]),
    ("host/backend/cpu/*.c", CPU),
    ("kernels/conv.cu", ["simt ops_conv", "simt ops_conv bf16", *STEPS]),
    ("kernels/classes.cu", ["simt ops_classes", *STEPS]),
    ("kernels/loss.cu", ["simt ops_loss", "simt ops_loss bf16", "simt ops_classes", *STEPS]),
    ("kernels/hopper*.cu", ["simt ops bf16", "simt gradients bf16"]),
    ("kernels/persistent.cu", [*WHOLE, "program parity"]),
    ("kernels/*.cu", [*KERNELS, *STEPS, *WHOLE]),
    ("host/backend/cuda/conv.c", ["simt ops_conv", "simt ops_conv bf16", *STEPS]),
    ("host/backend/cuda/classes.c", ["simt ops_classes", *STEPS, "program failures"]),
    ("host/backend/cuda/persistent.c", [*WHOLE, "program parity", "program bits"]),
    ("host/backend/cuda/comm.c", ["simt model", "ranks"]),
    ("host/backend/cuda/ranks.c", ["simt model", "ranks"]),
    ("host/backend/cuda/libs.c", ["simt model", "program refusals", "program failures"]),
    ("host/backend/cuda/linear.c", ["simt ops", "simt ops bf16", *STEPS, "program failures"]),
    ("host/backend/cuda/matmul.c", ["simt ops", "simt ops bf16", *STEPS, "program failures"]),
    ("host/backend/cuda/*.c", [*STEPS, *KERNELS, "simt ops_conv", "simt mapped", *WHOLE, "program bits",
                               "program failures", "program refusals", "ranks"]),
]

# Files of command-line tests (cli/test_NAME.py) that are about reading, running and training: the others take
# long and go through these on their way.
ASKED = ("trust", "program", "splits", "tables", "data", "init", "tensorboard", "labels")

# Faults that change nothing that a test could see: (source, what was there, what was planted): why. Lines of
# several are joined by line feeds, without the spaces before them.
EXPLAINED = {
    ("host/backend/cuda/conv.c", "key.op_b = CUBLAS_OP_N;", ";"):
        "it says what a new key has: CUBLAS_OP_N is 0, and what is not named is zero",
    ("host/backend/cpu/pack.c", "to[p * width + j] = j < cols ? b[j * ldb + p] : 0.0f;",
     "to[p * width + j] = j < cols ? b[j * ldb + p] : 1.0f;"):
        "columns that fill up a strip: what is computed of them is not copied to C",
    ("host/format/protobuf.c", "if (b->failed || n == 0) {", "if (b->failed && n == 0) {"):
        "nothing is appended where n is 0, either way; once memory has failed, `failed` stays, and whoever looks at "
        "it throws away what is there",
    ("host/run/checkpoint_read.c", "if (vae_checkpoint_settle_classes(c, &why) != VAE_OK) {",
     "if ((vae_checkpoint_settle_classes(c, &why) != VAE_OK) || 1) {"):
        "without an error why.status is VAE_OK, which vae_fail hands on: reading goes on, and the text of an error "
        "that is none is not looked at",
    ("host/run/folder.c", "if (folder->metrics < 0) {", "if (folder->metrics <= 0) {"):
        "descriptor 0 is never free: main.c opens /dev/null where standard input is closed, and run folders are the "
        "program's alone",
    ("host/backend/cpu/patches.c", "if (row != NULL && x0 >= 0 && room >= 0) {",
     "if ((row != NULL && x0 >= 0 && room >= 0) && 0) {"):
        "a way that is faster where no edge is near: what is behind it writes the same values, a pixel at a time",
    ("host/backend/cpu/patches.c",
     "vae_cpu_parallel(be, tasks, rows * vae_conv_small(g) * q.n / least_one(tasks), sum_chunk, &q);",
     "vae_cpu_parallel(be, tasks, rows + vae_conv_small(g) * q.n / least_one(tasks), sum_chunk, &q);"):
        "how long a task may take decides whether other threads are woken for it, and bits follow no thread",
    ("host/format/npy.c", "assert(total <= VAE_NPY_WRITE_HEADER_MAX);", ";"):
        "true of every header that the lines above can make; an assertion is no check of input",
}
