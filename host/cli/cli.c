/* The table of commands. */
#include "cli/cli.h"

#include <string.h>

#include "base/version.h"
#include "train/trainer.h"

static const cli_option train_options[] = {
    {"config", 'c', "FILE", "options from a JSON file, such as a run's config.json"},
    {"resume", 0, NULL, "go on with the run in --out; its options are taken over"},
    {"force", 0, NULL, "replace the run that is in --out"},
};

static const cli_option eval_options[] = {
    CLI_DATA_OPTIONS,
    {"samples", 'K', "K", "importance samples of the NLL; 0 = no NLL, the ELBO only [0]"},
    {"aggregate", 0, "N", "examples of I(x;z), KL(q(z)||p), total correlation; 0 = none [2000]"},
    {"gap", 0, NULL, "the training split, too, and the gap between them"},
    {"per-example", 0, "FILE", ".npz: elbo, recon, kl, nll and labels of each example"},
    {"binarize", 0, "none|threshold|static|dynamic", "default: as it was trained"},
    CLI_MODEL_OPTIONS,
};

static const cli_option sample_options[] = {
    {"n", 'n', "N", "how many [64]"},
    {"out", 'o', "FILE", ".png (a grid), a folder (one PNG a sample), .npy, or - [samples.png]"},
    {"seed", 's', "N", "of z [1]"},
    {"temperature", 0, "T", "scales the noise of z: 0 = none, 1 = as the model has it [1]"},
    {"columns", 0, "N", "of a grid; default: as makes it square"},
    {"from", 0, "prior|posterior", "N(0,I), or Gaussians fitted to q(z) of training data [prior]"},
    {"components", 'k', "N", "how many Gaussians, with --from posterior [10]"},
    {"covariance", 0, "full|diagonal", "of each of them [full]"},
    {"limit", 0, "N", "rows to fit them to, drawn from the data; 0 = all [20000]"},
    {"nearest", 0, NULL, "in a grid, each sample's nearest training example below it"},
    {"data", 'd', "DATA", "training data of the two; default: what it was trained on"},
    {"split", 0, "train|test", "of the data [train]"},
    {"class", 0, "K", "of a model with classes: only this one; default: a line for each"},
    CLI_MODEL_OPTIONS,
};

static const cli_option reconstruct_options[] = {
    CLI_DATA_OPTIONS,
    {"n", 'n', "N", "how many, from the first row on [20]"},
    {"rows", 0, "I,J,...", "which rows, from 0, in this order"},
    {"out", 'o', "FILE", ".png (a grid), a folder, .npy, or - [reconstructions.png]"},
    {"columns", 0, "N", "of a grid [10]"},
    CLI_MODEL_OPTIONS,
};

static const cli_option traverse_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", ".png (a line a latent), a folder, .npy, or - [traverse.png]"},
    {"range", 0, "R", "from -R to R [3]"},
    {"steps", 0, "N", "pictures of a line [11]"},
    {"top", 0, "N", "only the N latents of highest KL; default: all"},
    {"row", 0, "I", "start from mu of this row of the data; default: from 0"},
    {"class", 0, "K", "of a model with classes: decode as this one; default: the --row's"},
    CLI_MODEL_OPTIONS,
};

static const cli_option manifold_options[] = {
    {"out", 'o', "FILE", ".png (a grid), a folder, .npy, or - [manifold.png]"},
    {"n", 'n', "N", "pictures a side [30]"},
    {"range", 0, "R", "evenly from -R to R; default: at the quantiles of N(0,1)"},
    {"dims", 0, "I,J", "which latents, to the right and upwards; the others are 0 [0,1]"},
    {"class", 0, "K", "of a model with classes: decode as this one"},
    CLI_MODEL_OPTIONS,
};

static const cli_option interpolate_options[] = {
    CLI_DATA_OPTIONS,
    {"from", 0, "I,..|FILE", "row numbers, from 0, or a PNG file"},
    {"to", 0, "J,..|FILE", "as many"},
    {"out", 'o', "FILE", ".png, .gif (there and back), a folder, .npy, or - [interpolation.png]"},
    {"steps", 0, "N", "both ends included [10]"},
    {"mode", 0, "linear|spherical", "straight, or along the arc between the two mu [linear]"},
    {"class", 0, "K", "of a model with classes: decode as this one; default: as --from's"},
    CLI_MODEL_OPTIONS,
};

static const cli_option encode_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", ".npz: mu, logvar, labels; .npy: mu; - is standard output"},
    {"format", 0, "npz|npy", "default: by the name of --out; npy for -"},
    {"z", 0, NULL, "draw z, too; an .npy then holds z"},
    {"seed", 's', "N", "of z and of a drawn binarization; default: the run's"},
    {"binarize", 0, "none|threshold|static|dynamic", "default: as it was trained"},
    CLI_MODEL_OPTIONS,
};

static const cli_option score_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", "scores of each row: .csv or .npz; - is standard output, as CSV"},
    {"score", 0, "recon_error|recon_prob|neg_elbo|nll",
     "the one for threshold, flag and pictures [neg_elbo]"},
    {"samples", 'K', "L", "draws of z a row, of all scores but recon_error [32]"},
    {"contamination", 0, "P", "threshold: the 1-P quantile of the training rows' scores [0.05]"},
    {"reference", 0, "N", "training rows for that, evenly spread; 0 = all [10000]"},
    {"threshold", 0, "T", "flag scores above T; no training rows are needed"},
    {"anomaly-class", 0, "LABEL", "abnormal rows, for AUROC; default: the class left out"},
    {"contributions", 0, "FILE", ".npy or .npz (n,D): each column's part of the score"},
    {"heatmap", 0, "FILE", ".png: most abnormal rows, reconstructions, contributions"},
    {"histogram", 0, "FILE", ".svg: normal and abnormal scores, and the threshold"},
    CLI_MODEL_OPTIONS,
};

static const cli_option decode_options[] = {
    {"latents", 'l', "FILE", ".npy (n,Z), or .npz with z, mu or one array; - is standard input"},
    {"out", 'o', "FILE", ".npy, .png (a grid), a folder (one PNG a row), or -"},
    {"class", 0, "K", "of a model with classes: the class to decode as"},
    CLI_MODEL_OPTIONS,
};

static const cli_option classify_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", "CSV: row, label if known, predicted, p0, p1 ... [labels.csv]"},
    CLI_MODEL_OPTIONS,
};

static const cli_option complete_options[] = {
    CLI_DATA_OPTIONS,
    {"mask", 'm', "left|right|top|bottom|FILE",
     "the missing half, or .npy of D zeros (missing) and ones"},
    {"rows", 0, "I,J,...", "which rows of the data, from 0; default: the first 8"},
    {"n", 'n', "N", "completions of each row [8]"},
    {"rounds", 0, "N", "pseudo-Gibbs rounds of encoding and decoding [50]"},
    {"class", 0, "K", "of a model with classes: fill in as this class; default: the row's own"},
    {"seed", 's', "N", "of the noise [1]"},
    {"out", 'o', "FILE", "the picture [completions.png]"},
    CLI_MODEL_OPTIONS,
};

static const cli_option export_options[] = {
    {"format", 'f', "safetensors|npz|onnx", "default: by the name of --out"},
    {"out", 'o', "FILE",
     "onnx writes FILE.encoder.onnx, FILE.decoder.onnx, if it classifies FILE.classifier.onnx; - "
     "is "
     "standard output"},
    {"best", 0, NULL, "of a run folder, take best.vae instead of the newest checkpoint"},
};

static const cli_option import_options[] = {
    {"shape", 0, "HxW[x3]", "of a picture; default: from the file or --data, else a guess"},
    {"force", 0, NULL, "replace the run that is in --out"},
};

static const cli_option report_options[] = {
    CLI_DATA_OPTIONS,
    {"out", 'o', "FILE", "the report, or - [RUN/report.html]"},
    CLI_MODEL_OPTIONS,
};

static const cli_option info_options[] = {
    {"best", 0, NULL, "of a run folder, take best.vae instead of the newest checkpoint"},
};

static const cli_option probe_options[] = {
    {"data", 'd', "DATA", "data set with labels; default: the one it was trained on"},
    {"limit", 0, "N", "only the first N rows of each split; 0 = all"},
    {"neighbours", 'k', "K", "of the nearest-neighbour classifier [10]"},
    {"labels", 0, "N,N,...", "with so few labels, too: 100,600,1000,3000"},
    {"seeds", 0, "N", "draws of the few labels [5]"},
    {"seed", 's', "N", "of the draws [1]"},
    {"holdout", 0, "FRACTION", "of data without a test split, rows to measure on"},
    {"scatter", 0, "FILE", ".svg: latents by label in the plane of most variance"},
    {"disentanglement", 0, NULL, "MIG, SAP, DCI, BetaVAE, FactorVAE, where factors are known"},
    CLI_MODEL_OPTIONS,
};

static const cli_option bench_options[] = {
    {"batches", 0, "N,N,...", "batch sizes [128,1024,8192]"},
    {"repeats", 0, "N", "measurements of each; the median counts [5]"},
    {"seconds", 0, "S", "of each measurement [0.5]"},
};

#define OPTIONS(table) table, sizeof table / sizeof table[0]

static const cli_command commands[] = {
    {"train", "", 0, "Trains a VAE. An option that has no effect in the chosen mode is an error.",
     "  vae train                                    the built-in digits, ten epochs\n"
     "  vae train --data data/mnist --out runs/mnist MNIST, from its IDX files\n"
     "  vae train --data photos/ --image-size 64     PNG and JPEG files, classes in folders\n"
     "  vae train --data table.csv --likelihood gaussian --hidden 64 --latent 4\n"
     "  vae train --hidden 500,200 --latent 40 --binarize dynamic --epochs 100\n"
     "  vae train --resume --out runs/mnist --epochs 20\n",
     OPTIONS(train_options), true, cli_train},
    {"eval", "RUN", 1, "ELBO, reconstruction and KL, active units; NLL by importance sampling.",
     "  vae eval runs/mnist\n"
     "  vae eval runs/mnist --samples 5000 --json\n"
     "  vae eval runs/mnist --data more.npy --split train\n",
     OPTIONS(eval_options), false, cli_eval},
    {"sample", "RUN", 1, "New data: draws of z, decoded.",
     "  vae sample runs/mnist -n 100 --out samples.png\n"
     "  vae sample runs/mnist -n 50000 --out samples/     one PNG each, for FID tools\n"
     "  vae sample runs/mnist --from posterior --nearest\n"
     "  vae sample runs/mnist --temperature 0.7 --seed 2\n",
     OPTIONS(sample_options), false, cli_sample},
    {"reconstruct", "RUN", 1, "A grid of originals above their reconstructions.",
     "  vae reconstruct runs/mnist --out recon.png\n"
     "  vae reconstruct runs/mnist --rows 3,14,159\n"
     "  vae reconstruct runs/mnist --data other.npy --split train -n 50\n",
     OPTIONS(reconstruct_options), false, cli_reconstruct},
    {"interpolate", "RUN", 1, "From one example to another through latent space.",
     "  vae interpolate runs/mnist --from 1,5,9 --to 2,6,10 --out strips.png\n"
     "  vae interpolate runs/mnist --from 1 --to 2 --steps 20 --out walk.gif\n"
     "  vae interpolate runs/mnist --from a.png --to b.png --mode spherical\n",
     OPTIONS(interpolate_options), false, cli_interpolate},
    {"traverse", "RUN", 1, "What each latent does: a line each, highest KL first.",
     "  vae traverse runs/mnist --out traverse.png\n"
     "  vae traverse runs/mnist --top 10 --row 7 --range 2 --steps 9\n",
     OPTIONS(traverse_options), false, cli_traverse},
    {"manifold", "RUN", 1, "What two latents do together: a map of pictures.",
     "  vae manifold runs/two --out manifold.png          trained with --latent 2\n"
     "  vae manifold runs/mnist --dims 4,11 -n 20 --range 3\n",
     OPTIONS(manifold_options), false, cli_manifold},
    {"encode", "RUN", 1, "Latents of a data set, in its order: mu, logvar, labels, and draws of z.",
     "  vae encode runs/mnist --data data/mnist --split train --out latents.npz\n"
     "  vae encode runs/mnist --data rows.npy --out mu.npy\n"
     "  cat rows.npy | vae encode runs/mnist --data - --out - | vae decode runs/mnist -l - -o "
     "x.npy\n",
     OPTIONS(encode_options), false, cli_encode},
    {"decode", "RUN", 1, "Latents back to data: the decoder's means.",
     "  vae decode runs/mnist --latents z.npy --out x.npy\n"
     "  vae decode runs/mnist --latents latents.npz --out pictures/\n",
     OPTIONS(decode_options), false, cli_decode},
    {"classify", "RUN", 1, "Class probabilities q(y|x) of a semi-supervised model, as CSV.",
     "  vae classify runs/m2 --data data/mnist --out labels.csv\n", OPTIONS(classify_options),
     false, cli_classify},
    {"complete", "RUN", 1, "Fills in what a mask leaves out: a grid of completions.",
     "  vae complete runs/mnist --data data/mnist --mask left --out picture.png\n"
     "  vae complete runs/cvae --mask mask.npy --class 3 -n 10\n",
     OPTIONS(complete_options), false, cli_complete},
    {"score", "RUN", 1,
     "How abnormal each row is: reconstruction error and probability, -ELBO, NLL; flags, AUROC.",
     "  vae score runs/mnist --data new.npy --out scores.csv\n"
     "  vae score runs/mnist --contamination 0.01 --heatmap worst.png --histogram scores.svg\n"
     "  vae train --data data/mnist --exclude-class 3 --out runs/no3\n"
     "  vae score runs/no3 --data data/mnist --anomaly-class 3\n",
     OPTIONS(score_options), false, cli_score},
    {"export", "RUN", 1, "Weights for PyTorch and NumPy, graphs for ONNX Runtime.",
     "  vae export runs/mnist --out model.safetensors     VAE().load_state_dict(load_file(F))\n"
     "  vae export runs/mnist --out model.npz             numpy.load\n"
     "  vae export runs/mnist --out model.onnx            model.encoder.onnx, model.decoder.onnx\n",
     OPTIONS(export_options), false, cli_export},
    {"import", "FILE", 1,
     "Makes a run of weights trained elsewhere: safetensors or npz with the names that export "
     "writes.",
     "  vae import model.safetensors --data data/mnist --out runs/mine\n"
     "  vae train --resume --out runs/mine --epochs 5     trains on\n"
     "  vae import model.npz --activation tanh --likelihood gaussian --out mine.vae\n",
     OPTIONS(import_options), true, cli_import},
    {"report", "RUN", 1, "One HTML file: curves, pictures, tables, and the decoder to play with.",
     "  vae report runs/mnist                        runs/mnist/report.html\n"
     "  vae report runs/mnist --best --out best.html\n"
     "  vae report model.vae --data data/mnist --out model.html\n",
     OPTIONS(report_options), false, cli_report},
    {"info", "RUN|FILE", 1, "What is in a run folder, a checkpoint, a .safetensors or .npz file.",
     "  vae info runs/mnist\n"
     "  vae info runs/mnist/checkpoints/best.vae --json\n",
     OPTIONS(info_options), false, cli_info},
    {"devices", "", 0, "What there is to compute on.", "  vae devices\n", NULL, 0, false,
     cli_devices},
    {"probe", "RUN", 1,
     "How much the latents say of labels and factors, beside the data themselves.",
     "  vae probe runs/mnist\n"
     "  vae probe runs/mnist --labels 100,600,1000,3000 --scatter latents.svg\n"
     "  vae probe runs/sprites --disentanglement --limit 50000\n",
     OPTIONS(probe_options), false, cli_probe},
    {"bench", "", 0,
     "Times the training step: on the CPU and, where there is one, the GPU beside it.",
     "  vae bench\n"
     "  vae bench --data data/mnist --hidden 512,512 --batches 100,10000 --json\n"
     "  vae bench --device cuda --precision bf16 --batches 65536\n",
     OPTIONS(bench_options), true, cli_bench},
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static const cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static void overview(FILE *out)
{
    fputs("usage: vae COMMAND [options]\n\nTrains variational autoencoders.\n\ncommands:\n", out);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        fprintf(out, "  %-12s %-9s %s\n", commands[i].name, commands[i].words, commands[i].help);
    }
    fputs(
        "  help         [COMMAND] This text, or a command's options.\n\n"
        "RUN is a run folder or a checkpoint in it. vae COMMAND --help has options and examples.\n"
        "exit codes: 0 ok, 1 runtime, 2 usage, 3 bad data or checkpoint, 4 I/O, 5 diverged (NaN),\n"
        "6 no GPU; signals are passed on.\n\n"
        "examples:\n"
        "  vae train                           train on the built-in digits\n"
        "  vae eval runs/digits-1 --samples 500\n"
        "  vae sample runs/digits-1 --out samples.png\n",
        out);
}

static vae_status unknown_command(const char *name, vae_error *err)
{
    vae_nearest nearest = {.word = name};
    for (size_t i = 0; i < N_COMMANDS; i++) {
        vae_nearest_offer(&nearest, commands[i].name);
    }
    return vae_fail(err, VAE_ERR_USAGE, "unknown command '%s'%s%s%s", name,
                    nearest.best != NULL ? "; did you mean '" : "; vae --help lists them",
                    nearest.best != NULL ? nearest.best : "", nearest.best != NULL ? "'?" : "");
}

static vae_status help_command(int argc, char **argv, vae_error *err)
{
    if (argc < 3) {
        overview(stdout);
        return VAE_OK;
    }
    const cli_command *command = find_command(argv[2]);
    if (command == NULL) {
        return unknown_command(argv[2], err);
    }
    cli_help(command, stdout);
    return VAE_OK;
}

vae_status vae_cli(int argc, char **argv, vae_error *err)
{
    if (argc < 2) {
        overview(stderr);
        return vae_fail(err, VAE_ERR_USAGE, "no command given");
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        printf("vae %s (%s)\n", vae_build_version, vae_build_git);
        return VAE_OK;
    }
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        return help_command(argc, argv, err);
    }
    if (word[0] == '-') {
        return vae_fail(err, VAE_ERR_USAGE, "%s: a command comes first; vae --help lists them",
                        word);
    }
    const cli_command *command = find_command(word);
    if (command == NULL) {
        return unknown_command(word, err);
    }
    cli_args args;
    bool help;
    vae_status status = cli_read(&args, command, argc - 1, argv + 1, &help, err);
    if (status == VAE_OK && help) {
        cli_help(command, stdout);
        return VAE_OK;
    }
    return status == VAE_OK ? command->run(&args, err) : status;
}
