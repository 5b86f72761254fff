/* Names of classes, and labels in the making. */
#include "dataset/classes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "step.h"

#define WHOLE_MAX 9007199254740992.0 /* 2^53: whole numbers of a double below it are exact */

void vae_classes_clear(vae_classes *classes)
{
    for (size_t i = 0; i < classes->n; i++) {
        free(classes->name[i]);
    }
    free(classes->name);
    *classes = (vae_classes){0};
}

/* Room doubles at powers of two. */
static vae_status add_name(vae_classes *c, const char *name, vae_error *err)
{
    if ((c->n & (c->n - 1)) == 0) {
        const size_t room = c->n == 0 ? 1 : 2 * c->n;
        char **more = realloc(c->name, room * sizeof *more);
        if (more == NULL) {
            return vae_fail_memory(err, room * sizeof *more, "names of classes");
        }
        c->name = more;
    }
    c->name[c->n] = strdup(name);
    if (c->name[c->n] == NULL) {
        return vae_fail_memory(err, strlen(name), "the name of a class");
    }
    c->n++;
    return VAE_OK;
}

vae_status vae_classes_copy(vae_classes *out, const vae_classes *from, vae_error *err)
{
    vae_classes copy = {0};
    vae_status status = VAE_OK;
    for (size_t i = 0; i < from->n; i++) {
        TRY(add_name(&copy, from->name[i], err));
    }
    *out = copy;
    copy = (vae_classes){0};
done:
    vae_classes_clear(&copy);
    return status;
}

vae_status vae_classes_number(vae_classes *out, size_t n, vae_error *err)
{
    vae_classes numbers = {0};
    vae_status status = VAE_OK;
    for (size_t i = 0; i < n; i++) {
        char name[24];
        snprintf(name, sizeof name, "%zu", i);
        TRY(add_name(&numbers, name, err));
    }
    *out = numbers;
    numbers = (vae_classes){0};
done:
    vae_classes_clear(&numbers);
    return status;
}

/* ---- names ---- */

const char *vae_class_fault(const char *name)
{
    if (name[0] == '\0') {
        return "nothing";
    }
    if (strlen(name) >= VAE_CLASS_NAME) {
        return "more than 255 bytes";
    }
    if (!vae_is_utf8(name)) {
        return "text that is not UTF-8";
    }
    return strpbrk(name, "\t\r\n") == NULL && vae_is_printable(name)
               ? NULL
               : "a control character (a tab or a line break?)";
}

const char *vae_class_name(char name[VAE_CLASS_NAME], const char *text)
{
    double value;
    const char *fault = vae_class_fault(text);
    if (fault != NULL) {
        return fault;
    }
    if (!vae_parse_real(text, &value) || !(fabs(value) < WHOLE_MAX)) {
        memcpy(name, text, strlen(text) + 1);
        return NULL;
    }
    snprintf(name, VAE_CLASS_NAME, "%.0f", value + 0.0); /* -0 is 0 */
    return value == floor(value) ? NULL : "a fraction";
}

bool vae_class_number(const char *name, int64_t *number)
{
    char same[24];
    double value;
    if (!vae_parse_real(name, &value) || !(fabs(value) < WHOLE_MAX) || value != floor(value)) {
        return false;
    }
    *number = (int64_t)value;
    snprintf(same, sizeof same, "%lld", (long long)*number);
    return strcmp(same, name) == 0;
}

bool vae_classes_are_numbers(const vae_classes *classes)
{
    int64_t number;
    bool all = true;
    for (size_t i = 0; all && i < classes->n; i++) {
        all = vae_class_number(classes->name[i], &number);
    }
    return all;
}

static size_t find_exactly(const vae_classes *classes, const char *text)
{
    for (size_t i = 0; i < classes->n; i++) {
        if (strcmp(classes->name[i], text) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

size_t vae_class_find(const vae_classes *classes, const char *text)
{
    char name[VAE_CLASS_NAME];
    const size_t found = find_exactly(classes, text);
    return found == SIZE_MAX && vae_class_name(name, text) == NULL ? find_exactly(classes, name)
                                                                   : found;
}

bool vae_class_choose(bool *chosen, const vae_classes *classes, const char *text,
                      const char **unknown)
{
    for (const char *at = text;; at++) {
        size_t found = SIZE_MAX, length = 0;
        for (size_t i = 0; i < classes->n; i++) {
            const size_t n = strlen(classes->name[i]);
            if ((found == SIZE_MAX || n > length) && strncmp(at, classes->name[i], n) == 0 &&
                (at[n] == ',' || at[n] == '\0')) {
                found = i;
                length = n;
            }
        }
        if (found == SIZE_MAX) { /* perhaps a number in other digits */
            char part[VAE_CLASS_NAME];
            length = strcspn(at, ",");
            snprintf(part, sizeof part, "%.*s", (int)length, at);
            found = length < sizeof part ? vae_class_find(classes, part) : SIZE_MAX;
        }
        if (found == SIZE_MAX) {
            *unknown = at;
            return false;
        }
        chosen[found] = true;
        at += length;
        if (*at == '\0') {
            return true;
        }
    }
}

const char *vae_classes_text(char text[VAE_CLASSES_TEXT], const vae_classes *classes)
{
    enum { TAIL = 32 };
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < classes->n; i++) {
        const size_t more = strlen(classes->name[i]) + 2;
        if (used + more + TAIL >= VAE_CLASSES_TEXT) {
            snprintf(text + used, VAE_CLASSES_TEXT - used, "%s... (%zu in all)", i > 0 ? ", " : "",
                     classes->n);
            break;
        }
        used += (size_t)snprintf(text + used, VAE_CLASSES_TEXT - used, "%s%s", i > 0 ? ", " : "",
                                 classes->name[i]);
    }
    return text;
}

vae_status vae_classes_read(vae_classes *out, const char *names, size_t bytes, vae_error *err)
{
    vae_labeller l = {0};
    vae_status status = VAE_OK;
    for (const char *at = names; at < names + bytes; at += strlen(at) + 1) {
        const size_t before = l.seen.n;
        uint32_t label;
        if (vae_class_fault(at) != NULL) {
            TRY(vae_fail(err, VAE_ERR_DATA, "'%.40s' is no name of a class", at));
        }
        TRY(vae_labeller_take(&l, at, &label, err));
        if (l.seen.n == before) {
            TRY(vae_fail(err, VAE_ERR_DATA, "two classes are called '%.40s', or more than %d", at,
                         VAE_MAX_CLASSES));
        }
    }
    *out = l.seen;
    l.seen = (vae_classes){0};
done:
    vae_labeller_clear(&l);
    return status;
}

/* ---- labels in the making ---- */

/* Where the name stands, or would: FNV-1a, then the next free slot. */
static size_t slot_of(const vae_labeller *l, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *at = name; *at != '\0'; at++) {
        hash = (hash ^ (unsigned char)*at) * 0x100000001b3u;
    }
    size_t at = (size_t)(hash ^ hash >> 32) & (l->slots - 1);
    while (l->slot[at] != 0 && strcmp(l->seen.name[l->slot[at] - 1], name) != 0) {
        at = (at + 1) & (l->slots - 1);
    }
    return at;
}

static vae_status grow(vae_labeller *l, vae_error *err)
{
    const size_t slots = l->slots == 0 ? 64 : 2 * l->slots;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (slot == NULL) {
        return vae_fail_memory(err, slots * sizeof *slot, "names of classes");
    }
    free(l->slot);
    l->slot = slot;
    l->slots = slots;
    for (size_t i = 0; i < l->seen.n; i++) {
        l->slot[slot_of(l, l->seen.name[i])] = (uint32_t)i + 1;
    }
    return VAE_OK;
}

vae_status vae_labeller_take(vae_labeller *l, const char *name, uint32_t *label, vae_error *err)
{
    vae_status status = VAE_OK;
    if (2 * (l->seen.n + 1) > l->slots) {
        TRY(grow(l, err));
    }
    const size_t at = slot_of(l, name);
    *label = VAE_NO_LABEL;
    if (l->slot[at] == 0 && l->seen.n < VAE_MAX_CLASSES) {
        TRY(add_name(&l->seen, name, err));
        l->slot[at] = (uint32_t)l->seen.n;
    }
    *label = l->slot[at] != 0 ? l->slot[at] - 1 : VAE_NO_LABEL;
done:
    return status;
}

typedef struct {
    char *name;
    uint32_t seen; /* its place before */
} ranked;

static int by_name(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    int64_t i = 0, j = 0;
    const bool first = vae_class_number(x->name, &i), second = vae_class_number(y->name, &j);
    if (first != second) {
        return first ? -1 : 1;
    }
    if (first) {
        return i < j ? -1 : i > j;
    }
    return strcmp(x->name, y->name);
}

vae_status vae_labeller_finish(vae_labeller *l, vae_classes *out, uint32_t *labels, size_t n,
                               vae_error *err)
{
    const size_t room = l->seen.n > 0 ? l->seen.n : 1;
    size_t kept = 0;
    vae_status status = VAE_OK;
    ranked *order = malloc(room * sizeof *order);
    uint32_t *rank = malloc(room * sizeof *rank);
    if (order == NULL || rank == NULL) {
        TRY(vae_fail_memory(err, room * sizeof *order, "names of classes"));
    }
    memset(rank, 0, room * sizeof *rank);
    for (size_t i = 0; i < n; i++) {
        if (labels[i] != VAE_NO_LABEL) {
            rank[labels[i]] = 1;
        }
    }
    for (size_t i = 0; i < l->seen.n; i++) {
        if (rank[i] != 0) {
            order[kept++] = (ranked){l->seen.name[i], (uint32_t)i};
        } else {
            free(l->seen.name[i]);
        }
    }
    qsort(order, kept, sizeof *order, by_name);
    for (size_t i = 0; i < kept; i++) {
        l->seen.name[i] = order[i].name;
        rank[order[i].seen] = (uint32_t)i;
    }
    for (size_t i = 0; i < n; i++) {
        labels[i] = labels[i] != VAE_NO_LABEL ? rank[labels[i]] : VAE_NO_LABEL;
    }
    *out = (vae_classes){l->seen.name, kept};
    l->seen = (vae_classes){0};
    vae_labeller_clear(l);
done:
    free(order);
    free(rank);
    return status;
}

void vae_labeller_clear(vae_labeller *l)
{
    vae_classes_clear(&l->seen);
    free(l->slot);
    *l = (vae_labeller){0};
}
