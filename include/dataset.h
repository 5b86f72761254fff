/* Data sets: rows of D numbers with optional labels and factors, held on the host in the type they
 * were stored in. Nothing here converts a whole set to float; the backend's gather does it a batch
 * at a time. */
#ifndef VAE_DATASET_H
#define VAE_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef enum {
    VAE_U8 = 0,  /* bytes; the value is byte/255 */
    VAE_F32 = 1, /* floats as they are */
} vae_dtype;

typedef enum { VAE_SPLIT_TRAIN = 0, VAE_SPLIT_TEST = 1 } vae_split;

/* n rows of d values, row-major. The set owns every pointer. */
typedef struct {
    char source[512]; /* what the user named, for messages and run.json */
    size_t n, d;
    size_t height, width, channels; /* d = height*width*channels (HWC); 1 x d x 1 if not an image */
    vae_dtype dtype;
    bool draws;       /* rows are [mean | log variance], 2d floats; gather draws d normals */
    void *rows;       /* (n,d) uint8_t or float; (n,2d) floats if draws */
    uint8_t *labels;  /* (n) or NULL */
    size_t n_classes; /* largest label + 1, or 0 */
    float *factors;   /* (n,n_factors) ground-truth factors of generation, or NULL */
    size_t n_factors;
    const char *const *factor_names; /* static strings, n_factors of them, or NULL */
    uint8_t sha256[32]; /* of the content: n, d, dtype as u64 LE, then the rows' bytes */
} vae_dataset;

/* Opens a data set named by the user:
 * - "digits": the built-in set, drawn at once: 60,000 train and 10,000 test pictures of 28 x 28,
 *   labels 0..9 in equal numbers (in every ten leading rows too), and the factors they were drawn
 *   with: digit, style (which of a digit's ways of writing), rotation (radians, clockwise), slant
 *   (width by height, to the right), scale_x, scale_y, thickness (of the pen, pixels), offset_x,
 *   offset_y (pixels). The bytes are fixed: the same on every machine and for any thread count.
 *   A folder of that name is "./digits".
 * - A folder of IDX files, plain or .gz: train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-...
 *   (or with a dot, train-images.idx3-ubyte), in the folder itself, raw/, MNIST/raw/,
 *   FashionMNIST/raw/ or KMNIST/raw/. Labels are optional; where there, their number must match.
 * - An IDX images file (labels: the file beside it that is named alike), of 2, 3 or 4 dimensions,
 *   unsigned bytes or floats.
 * - An .npy file, plain or .gz: u1, f4 or f8 (made f4), little-endian, C order, (n,d), (n,h,w) or
 *   (n,h,w,c) with c 1 or 3.
 * Bytes mean byte/255; a file whose largest byte is 1 is refused, as binary data stored as 0 and 1.
 * Files are told apart by their first bytes. A single file has no test split: asking for it is
 * VAE_ERR_DATA with a message that says so. limit > 0 keeps the first `limit` rows; the rest of a
 * file is still checked.
 * *out is owned by the caller: vae_dataset_free. On failure it is NULL.
 * Errors: VAE_ERR_IO (cannot read), VAE_ERR_DATA (malformed: names the file, the offset, what was
 * expected and what was found), VAE_ERR_RUNTIME (memory). */
vae_status vae_dataset_open(vae_dataset **out, const char *name, vae_split split, size_t limit,
                            vae_error *err);
void vae_dataset_free(vae_dataset *set);

/* True if `name` offers a split of its own for testing (digits, an IDX folder with t10k files).
 * Looks at names only: opening may still fail. */
bool vae_dataset_has_test(const char *name);

/* Every value in [0,1] (always so for VAE_U8)? If not, VAE_ERR_DATA naming row, column (from 0) and
 * value; with finite_only, only NaN and Inf are refused (Gaussian likelihood). */
vae_status vae_dataset_check_range(const vae_dataset *set, bool finite_only, vae_error *err);

/* Values stored of a row, and the bytes they take. */
static inline size_t vae_dataset_width(const vae_dataset *set)
{
    return set->draws ? 2 * set->d : set->d;
}
static inline size_t vae_dataset_row_bytes(const vae_dataset *set)
{
    return vae_dataset_width(set) * (set->dtype == VAE_F32 ? sizeof(float) : 1);
}

/* Labels below n_classes? VAE_ERR_DATA naming the row if not, or if there are no labels although
 * they are `required`. */
vae_status vae_dataset_check_labels(const vae_dataset *set, size_t n_classes, bool required,
                                    vae_error *err);

/* Value (row, col) as the model sees it before binarization, the mean where rows are drawn. row <
 * n, col < d. */
float vae_dataset_value(const vae_dataset *set, size_t row, size_t col);

#endif
