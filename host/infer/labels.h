/* Labels in files, as people know them: by their names. */
#ifndef VAE_INFER_LABELS_H
#define VAE_INFER_LABELS_H

#include <stdio.h>

#include "dataset/dataset.h"
#include "format/npz.h"

/* A field of a CSV: the name of the row's class, in quotes where it needs them; nothing where the
 * row has none. */
void vae_label_csv(FILE *out, const vae_dataset *set, size_t row);
/* The same for any text. */
void vae_text_csv(FILE *out, const char *text);

/* Memory of arrays that an archive in the making borrows. Zero-initialize it. */
typedef struct {
    void *labels, *names;
} vae_label_arrays;

/* Adds the set's labels, if it has any, as the array `labels`. Where all names are numbers these
 * numbers: u1 if they fit, else i8, or f8 with NaN for rows of no class. Else the indices (u1 or
 * i8, -1: no class) into a second array `class_names`, of texts. VAE_ERR_RUNTIME. */
vae_status vae_label_arrays_add(vae_label_arrays *a, vae_npz_writer *w, const vae_dataset *set,
                                vae_error *err);
void vae_label_arrays_clear(vae_label_arrays *a);

#endif
