/* Data sets: rows of D numbers with optional labels and factors, held on the host in the type they
 * were stored in, or mapped from a file that may be larger than memory. Nothing here converts a
 * whole set to float; the backend's gather does it a batch at a time. */
#ifndef VAE_DATASET_H
#define VAE_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/map.h"
#include "base/status.h"
#include "base/stop.h"
#include "config/config.h"
#include "dataset/classes.h"
#include "step.h"

/* Bytes of a row of d values: rows follow each other without gaps. */
size_t vae_row_bytes(vae_dtype dtype, size_t d);

typedef enum { VAE_SPLIT_TRAIN = 0, VAE_SPLIT_TEST = 1 } vae_split;

typedef enum {
    VAE_KIND_ARRAY = 0, /* digits, IDX, NPY, NPZ: rows as they are */
    VAE_KIND_PICTURES,  /* a folder of picture files, resized as the options say */
    VAE_KIND_TABLE,     /* columns with names */
} vae_data_kind;

/* What is no larger is better read: nobody changes it then, whatever becomes of the file. */
enum { VAE_IN_MEMORY = 64 << 20 };

/* What a pass over all rows told of their values, so that nobody needs another. */
typedef struct {
    bool known;     /* that pass was made, and rows are what they were then */
    uint8_t either; /* of bytes: the bits that are set in any; 1 where the largest byte is 1 */
    /* Of floats, places in row-major order of the first that is not in [0,1] (NaN is not) and of
     * the first that is not finite; SIZE_MAX: there is none. */
    size_t outside, wild;
} vae_facts;

/* How data are read. All zero is the default. */
typedef struct {
    const vae_config *config; /* of it, what is about data; NULL: unset */
    /* Keep doubles that floats round as `wide`, for vae_dataset_standardize; where the config says
     * that it comes, they are kept in any case. */
    bool exact;
    size_t channels; /* of picture files, where the config leaves it open: the model's; 0: theirs */
    bool nameless;   /* what the file's first bytes do not tell is a table */
    bool marks;      /* not pixels: bytes that are all 0 or 1 are taken, too */
    bool of_model;   /* rows for a model that is there need not have the columns it leaves out */
    bool means;      /* vae_dataset_mean will be asked for: columns are summed when all is read */
    size_t limit;    /* > 0 keeps so many rows: the first, or as said below */
    /* Arrays in files that are as they are wanted are mapped, not read, where they take more bytes;
     * 0: VAE_IN_MEMORY. */
    size_t in_memory;
    /* Rows read, where it takes long; may be NULL; called by one thread. */
    void (*progress)(void *ctx, size_t done, size_t total);
    void *ctx;
    /* Of folders of pictures: the file that keeps their rows, NULL: none. It is made where it is
     * not there or is of other pictures, if make_cache; else it is taken where it fits, it or the
     * one with VAE_CACHE_TEST behind its name, and left alone where not. */
    const char *cache;
    bool make_cache;
    const vae_stop_flag *stop; /* ends the reading of pictures: VAE_ERR_INTERRUPTED; may be NULL */
} vae_data_options;

/* Behind the name that --cache gives, of the rows that are tested on. */
#define VAE_CACHE_TEST ".test"

/* A picture file that is no row, as --skip-bad allows. */
typedef struct {
    size_t number; /* among all files, in order */
    char *file, *why;
} vae_left_out;

/* n rows of d values, row-major. The set owns every pointer. */
typedef struct vae_dataset {
    char source[512]; /* what the user named, for messages and run.json */
    size_t n, d;
    size_t height, width, channels; /* d = height*width*channels (HWC); 1 x d x 1 if not an image */
    vae_dtype dtype;
    vae_data_kind kind;
    bool draws;   /* rows are [mean | log variance], 2d floats; gather draws d normals */
    void *rows;   /* (n,d) uint8_t or float, or (n, vae_row_bytes) uint8_t of bits; (n,2d) floats
                      * if draws. Not to be written where they lie in a map */
    vae_map *map; /* the file that holds `rows`; NULL: they are malloc'ed */
    bool loose;   /* bits that lie in the map as (n,d) bytes, 0 or 1; vae_dataset_row packs them */
    double *wide; /* (n,d): what `rows` are rounded from, until they are standardized; or NULL */
    uint32_t *labels;    /* (n) indices of classes, VAE_NO_LABEL: of none; or NULL */
    vae_classes classes; /* their names */
    float *factors;      /* (n,n_factors) ground-truth factors of generation, or NULL */
    size_t n_factors;
    const char *const *factor_names; /* static strings, n_factors of them, or NULL */
    char **column_names;             /* (d) of a table, or NULL */
    /* (n_factors), static, or NULL. Where given, the rows are a whole grid, each combination of the
     * factors' levels once, and vae_grid_row says where: n is the product of the sizes. */
    const size_t *factor_sizes;
    /* (n) numbers of the rows in what was read, if only some of it is here (vae_dataset_pick), or
     * NULL */
    uint32_t *picked;
    /* what vae_dataset_pick took the rows from, as it was, and their places in it (n); or NULL. For
     * backends, which binarize a row by its place */
    struct vae_dataset *whole;
    uint32_t *place;
    uint8_t
        sha256[32]; /* of the content: n, d, dtype as u64 LE, then the rows' bytes (bits packed) */
    const uint8_t *recorded; /* (32) what sha256 must be, as the file says that the rows lie in;
                              * NULL: nobody says. For vae_dataset_open alone */
    vae_left_out *left_out;  /* (n_left_out) in their order, or NULL */
    size_t n_left_out;
    vae_facts facts;
    /* (d), or NULL: sums of all rows, of the values, or if summed_threshold of value >= 1/2; of
     * bytes 255 times that */
    double *sums;
    bool summed_threshold;
} vae_dataset;

/* Opens a data set named by the user: - "digits": the built-in set, drawn at once: 60,000 train and
 * 10,000 test pictures of 28 x 28,
 *   labels 0..9 in equal numbers (in every ten leading rows too), and the factors they were drawn
 *   with: digit, style (which of a digit's ways of writing), rotation (radians, clockwise), slant
 *   (width by height, to the right), scale_x, scale_y, thickness (of the pen, pixels), offset_x,
 *   offset_y (pixels). The bytes are fixed: the same on every machine and for any thread count.
 *   A folder of that name is "./digits".
 * - "sprites": a look-alike of dSprites, drawn at once: 737,280 binary pictures of 64 x 64, a grid
 *   of the factors shape (0 square, 1 ellipse, 2 heart: the label too), scale (6 from 0.5 to 1),
 *   rotation (40 from 0 to 2 pi, radians, counter-clockwise; the last shows what the first does),
 *   x and y (32 from 0 to 1, to the right and down), y fastest. All rows are for training, as the
 *   grid has no split of its own. With 0 < limit < n the rows are the first of a fixed random order
 *   of the grid, and no grid any more. As fixed bytes as those of digits.
 * - A folder of IDX files, plain or .gz: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-...
 *   (or with a dot, train-images.idx3-ubyte), in the folder itself, raw/, MNIST/raw/,
 *   FashionMNIST/raw/ or KMNIST/raw/. Labels are optional; where there, their number must match.
 * - An IDX images file (labels: the file beside it that is named alike), of 2, 3 or 4 dimensions,
 *   unsigned bytes or floats; integers of other sizes and doubles are made floats.
 * - An .npy file, plain or .gz: u1, f4, f8 (made f4) or b1 (made bits), little-endian, C order,
 *   (n,d), (n,h,w) or (n,h,w,c) with c 1 or 3.
 * - An .npz file: the array `data` or `x`, labels `labels`, `label` or `y` where there are any; or
 *   x_train, y_train, x_test, y_test, which make splits; or whatever its only array is called.
 * - A folder of picture files (image.h has the formats). Folders in it are classes, in the order of
 *   their names, and hold the files of one class (as torchvision's ImageFolder); files that lie in
 *   it directly have no labels. Folders train and test (or val, valid) make splits. Rows are in the
 *   order of paths, with 0 < limit < n the first of a fixed random order of them. Links are
 *   followed, and each file and folder is taken once. Pictures in other formats are refused, as are
 *   pictures in the folder itself and in folders in it; other files are told of (err->notes). Up to
 *   config->skip_bad files that are damaged or cannot be read are left out.
 *   Colour becomes grey by ITU-R 601 (as PIL); alpha is dropped; EXIF's orientation is followed,
 *   unless config->exif says ignore.
 *   With image_size N the shorter side is scaled to N by a triangle filter as wide as the reduction
 *   (PIL's antialiased BILINEAR), then the middle N x N are cut out; without it all files must be
 *   of one size.
 * - A file of these: a set of one row. - A .csv or .tsv file, plain or .gz, whose first line holds
 * the names of its columns: RFC 4180,
 *   UTF-8, numbers only but for labels and what config->drop_columns leaves out. Tabs separate the
 *   fields of a .tsv; where another's first line has no comma, semicolons or tabs do. Then commas
 *   may be decimal marks; err's notes are told. The label column is config->label_column, or else
 *   the one called label, class, y or target (whatever case), if any, which a note says; "none":
 *   all are data. An empty label is of no class, a fraction is refused.
 * Labels are whole numbers or texts; the classes are those of the rows that are kept, in the order
 * of classes.h. Bytes mean byte/255; a file whose largest byte is 1 is refused, as binary data
 * stored as 0 and 1. Files are told apart by their first bytes, .npz and .csv by their names. A
 * single file that is no .npz has no test split: asking for it is VAE_ERR_DATA with a message that
 * says so. With a limit the rest of a packed file is still unpacked, of another only its length is
 * looked at. Large arrays that are stored as they are wanted (.npy of u1, f4 and b1, IDX of bytes)
 * are mapped, not read. options may be NULL. *out is owned by the caller: vae_dataset_free. On
 * failure it is NULL. Errors: VAE_ERR_IO (cannot read), VAE_ERR_DATA (malformed: names the file,
 * the offset, what was expected and what was found), VAE_ERR_RUNTIME (memory). */
vae_status vae_dataset_open(vae_dataset **out, const char *name, vae_split split,
                            const vae_data_options *options, vae_error *err);
void vae_dataset_free(vae_dataset *set);
/* n of them. */
void vae_left_out_free(vae_left_out *files, size_t n);

/* *has: does `name` offer a split of its own for testing (digits, an IDX folder with t10k files, an
 * .npz with x_test, a folder with pictures in test)? What is gone, or no data set, has none.
 * Errors are those of opening it: it cannot be known now. */
vae_status vae_dataset_has_test(bool *has, const char *name, vae_error *err);

/* Is there no data set of this name any more, or none that we may read? */
bool vae_dataset_is_gone(const char *name);

/* Refuses an option that the user named but which is for another kind of data.
 * VAE_ERR_USAGE. */
vae_status vae_dataset_check_options(const vae_dataset *set, const vae_option_set *given,
                                     vae_error *err);

/* Is it the name of a built-in set? */
bool vae_dataset_is_built_in(const char *name);

/* What vae_dataset_open reads, in words: for help. Returns text. */
enum { VAE_DATASET_KINDS = 512 };
const char *vae_dataset_kinds(char text[VAE_DATASET_KINDS]);

/* The one pass over all rows: fills in sha256 and facts, and where options say `means`, sums.
 * vae_dataset_open does it by itself. Bytes that stand for booleans and are neither 0 nor 1:
 * VAE_ERR_DATA naming row and column. VAE_ERR_RUNTIME. options may be NULL; of it, config, means,
 * progress and ctx are looked at. */
vae_status vae_dataset_scan(vae_dataset *set, const vae_data_options *options, vae_error *err);

/* Is the file that the rows lie in, if any, what it was when it was opened? VAE_ERR_IO if not. To
 * be asked between pieces of work. */
vae_status vae_dataset_check_file(const vae_dataset *set, vae_error *err);

/* The rows as the caller's, in memory, (n, vae_dataset_row_bytes), to be freed; the set is left
 * without. VAE_ERR_RUNTIME (memory); VAE_ERR_IO: as vae_dataset_check_file, of what is copied. */
vae_status vae_dataset_take_rows(vae_dataset *set, void **rows, vae_error *err);

/* Does the likelihood take every value: those in [0,1] (always so for bytes and bits; of a
 * Gaussian, where its mean is a sigmoid), or all but NaN and Inf? If not, VAE_ERR_DATA naming row,
 * column (from 0) and value. */
vae_status vae_dataset_check_range(const vae_dataset *set, vae_likelihood likelihood, vae_mean mean,
                                   vae_error *err);

/* Values stored of a row, and the bytes they take. */
static inline size_t vae_dataset_width(const vae_dataset *set)
{
    return set->draws ? 2 * set->d : set->d;
}
static inline size_t vae_dataset_row_bytes(const vae_dataset *set)
{
    return vae_row_bytes(set->dtype, vae_dataset_width(set));
}

/* Bytes from a row's beginning to the next one's. */
static inline size_t vae_dataset_stride(const vae_dataset *set)
{
    return set->loose ? set->d : vae_dataset_row_bytes(set);
}

/* n (a multiple of 8, or the last ones) booleans, bytes 0 and 1, to bits; those behind the last are
 * 0. */
void vae_pack_bools(uint8_t *bits, const uint8_t *bools, size_t n);

/* A row as its dtype says: where it lies, or packed into room (vae_dataset_row_bytes), which may be
 * NULL where rows are not loose. */
static inline const void *vae_dataset_row(const vae_dataset *set, size_t row, void *room)
{
    const uint8_t *at = (const uint8_t *)set->rows + row * vae_dataset_stride(set);
    if (set->loose) {
        vae_pack_bools(room, at, set->d);
        return room;
    }
    return at;
}

/* Says that rows which lie in a map are read one after another next, or (as it is else) from
 * anywhere. */
void vae_dataset_in_order(const vae_dataset *set, bool in_order);

/* Begins to bring n rows that lie in a map from the disk, so that whoever wants them soon need not
 * wait for one after another. Rows that follow each other closely are brought together. */
void vae_dataset_fetch(const vae_dataset *set, const uint32_t *rows, size_t n);

/* The set's labels become places in `known`, behind which the names stand that are new. Nothing
 * where none are known, or no labels. VAE_ERR_RUNTIME. */
vae_status vae_dataset_map_classes(vae_dataset *set, const vae_classes *known, vae_error *err);
/* Is each row's label below n_classes, or if not `all` need one, of no class? VAE_ERR_DATA naming
 * row and class if not, or if there are no labels. */
vae_status vae_dataset_check_labels(const vae_dataset *set, size_t n_classes, bool all,
                                    vae_error *err);

/* How messages call a column: its name in quotes, or its number. Returns text. */
const char *vae_dataset_column(const vae_dataset *set, size_t column, char text[64]);

/* Mean and standard deviation (over n) of each column of the rows index[0..n-1] (NULL: all rows)
 * into shift and scale, (d) each, in double and in the rows' order, of doubles where they were
 * kept. A column that does not vary gets scale 1; err's notes are told of one whose variation is
 * no more than rounding. VAE_ERR_DATA for bytes, which are pictures. */
vae_status vae_dataset_moments(const vae_dataset *set, const uint32_t *index, size_t n,
                               double *shift, double *scale, vae_error *err);

/* Rows to (x - shift) / scale, in double and in place; doubles that were kept are freed. The
 * checksum stays that of the rows as they were read.
 * VAE_ERR_DATA for bytes. Rows that lie in a map are brought into memory: as
 * vae_dataset_take_rows. */
vae_status vae_dataset_standardize(vae_dataset *set, const double *shift, const double *scale,
                                   vae_error *err);

/* Keeps the rows index[0..n-1] alone, in that order, with their labels and factors; n > 0. The
 * checksum stays that of the rows as they were read, which are kept beside as set->whole.
 * VAE_ERR_RUNTIME (memory); VAE_ERR_IO: as vae_dataset_check_file, of what is copied. */
vae_status vae_dataset_pick(vae_dataset *set, const uint32_t *index, size_t n, vae_error *err);

/* Number of row i in what was read. */
static inline size_t vae_dataset_number(const vae_dataset *set, size_t i)
{
    return set->picked != NULL ? set->picked[i] : i;
}

/* Where backends find the rows so that each is drawn as it is among all: the set that they were
 * picked from, or this one. */
static inline const vae_dataset *vae_dataset_whole(const vae_dataset *set)
{
    return set->whole != NULL ? set->whole : set;
}

/* Value (row, col) as the model sees it before binarization, the mean where rows are drawn. row <
 * n, col < d. */
float vae_dataset_value(const vae_dataset *set, size_t row, size_t col);

/* mean: (d) out: column means of the n rows whose numbers are in `rows` (each once; NULL = all, n
 * ignored), of the values, or with `threshold` of value >= 1/2. Where set->sums are these, only
 * rows that are left out are read, or none; but floats, whose sums depend on what is added when,
 * are read again unless all of them are meant, in order. VAE_ERR_RUNTIME (memory); VAE_ERR_IO: as
 * vae_dataset_check_file, of what is read. */
vae_status vae_dataset_mean(const vae_dataset *set, const uint32_t *rows, size_t n, bool threshold,
                            float *mean, vae_error *err);

/* ---- grids of factors: level k is 0..sizes[k]-1, and the last factor changes fastest ---- */

/* The row with these levels: level: (n_factors), each below its size. Where a set has factor_sizes,
 * its factors (n,n_factors) hold the levels' values in that row. */
size_t vae_grid_row(const size_t *sizes, size_t n_factors, const size_t *level);
/* level: (n_factors) out, those of `row`, which is below the product of the sizes. */
void vae_grid_levels(size_t *level, const size_t *sizes, size_t n_factors, size_t row);

#endif
