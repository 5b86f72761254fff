/* CSV tables as data sets: RFC 4180, a header of column names, numbers; also as spreadsheets write
 * them where the comma is the decimal mark. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "config/config.h"
#include "dataset/readers.h"

enum {
    CHUNK = 1 << 16,
    MAX_FIELD = 1 << 16,
    MAX_COLUMNS = 1 << 20,
    MAX_NAME = 1000, /* bytes of a column's name: enough for a question of a survey */
    SHOWN = 40,      /* bytes of a field that a message shows */
};

typedef enum { END_FIELD, END_RECORD, END_FILE } csv_end;

typedef struct {
    vae_stream *s;
    vae_dataset *set;
    const vae_data_options *options;
    uint8_t chunk[CHUNK];
    size_t at, got;
    int separator;      /* of fields: a comma, semicolon or tab */
    char decimal;       /* mark of the numbers so far, point or comma; 0: they were whole */
    uint64_t line;      /* of the character that comes next, from 1 */
    char *field;        /* the last field, NUL-terminated */
    size_t field_bytes; /* without the NUL */
    size_t field_room;
    bool quoted;         /* it stood in quotes */
    char **names;        /* of all columns */
    bool *dropped;       /* (columns) by --drop-columns */
    size_t columns;      /* in the file */
    size_t label_column; /* SIZE_MAX: none */
    double *row;         /* (d) of a record */
    vae_narrowing narrowing;
    bool label_named; /* by the user */
    size_t row_room;
    vae_labeller labels;
} csv;

static vae_status bad(const csv *c, vae_error *err, const char *what)
{
    return vae_fail(err, VAE_ERR_DATA, "%s: line %llu: %s", vae_stream_name(c->s),
                    (unsigned long long)c->line, what);
}

/* The next byte, or -1 at the end. */
static vae_status next(csv *c, int *byte, vae_error *err)
{
    if (c->at == c->got) {
        vae_status status = vae_stream_read(c->s, c->chunk, sizeof c->chunk, &c->got, err);
        c->at = 0;
        if (status != VAE_OK || c->got == 0) {
            *byte = -1;
            return status;
        }
    }
    *byte = c->chunk[c->at++];
    c->line += *byte == '\n';
    return *byte != 0 ? VAE_OK : bad(c, err, "a zero byte: this is no text");
}

static vae_status keep_byte(csv *c, int byte, vae_error *err)
{
    if (c->field_bytes + 1 >= c->field_room) {
        if (c->field_room >= MAX_FIELD) {
            return bad(c, err, "a field of more than 65,535 bytes; is a quote not closed?");
        }
        size_t room = c->field_room == 0 ? 64 : 2 * c->field_room;
        char *more = realloc(c->field, room);
        if (more == NULL) {
            return vae_fail_memory(err, room, "a field");
        }
        c->field = more;
        c->field_room = room;
    }
    c->field[c->field_bytes++] = (char)byte;
    c->field[c->field_bytes] = '\0';
    return VAE_OK;
}

/* Ends the field at `byte`, which must be one that may stand behind it. */
static vae_status end_field(csv *c, int byte, csv_end *end, vae_error *err)
{
    vae_status status = VAE_OK;
    if (byte == '\r') {
        TRY(next(c, &byte, err));
        if (byte != '\n' && byte != -1) {
            TRY(bad(c, err,
                    "a carriage return without a line feed behind it: save with line ends LF or "
                    "CRLF"));
        }
    }
    if (byte == c->separator) {
        *end = END_FIELD;
    } else if (byte == '\n') {
        *end = END_RECORD;
    } else if (byte == -1) {
        *end = END_FILE;
    } else {
        TRY(bad(c, err,
                c->separator == ','
                    ? "expected a comma or the end of the line behind a closing quote"
                    : "expected the end of the field or line behind a closing quote"));
    }
done:
    return status;
}

static vae_status read_quoted(csv *c, csv_end *end, vae_error *err)
{
    vae_status status = VAE_OK;
    for (int byte;;) {
        TRY(next(c, &byte, err));
        if (byte == -1) {
            TRY(bad(c, err, "the file ends within quotes"));
        }
        if (byte == '"') {
            TRY(next(c, &byte, err));
            if (byte != '"') {
                return end_field(c, byte, end, err);
            }
        }
        TRY(keep_byte(c, byte, err));
    }
done:
    return status;
}

/* The next field into c->field. */
static vae_status read_field(csv *c, csv_end *end, vae_error *err)
{
    vae_status status = VAE_OK;
    int byte;
    c->field_bytes = 0;
    TRY(keep_byte(c, 0, err)); /* room for the NUL of an empty field */
    c->field_bytes = 0;
    TRY(next(c, &byte, err));
    c->quoted = byte == '"';
    if (c->quoted) {
        return read_quoted(c, end, err);
    }
    while (byte != c->separator && byte != '\n' && byte != '\r' && byte != -1) {
        if (byte == '"') {
            TRY(bad(c, err, "a quote within a field that does not begin with one"));
        }
        TRY(keep_byte(c, byte, err));
        TRY(next(c, &byte, err));
    }
    TRY(end_field(c, byte, end, err));
done:
    return status;
}

/* ---- the header ---- */

/* A name that is taken here must survive checkpoint, export and JSON. */
static vae_status check_name(const csv *c, vae_error *err)
{
    const char *found = c->field_bytes > 0 ? c->field : "nothing", *remedy = NULL;
    double number;
    if (c->field_bytes == 0 || (!c->quoted && vae_parse_real(c->field, &number))) {
        remedy =
            "; the first line holds the columns' names (of pandas' index, too: leave it out by "
            "to_csv(index=False), or name it)";
    } else if (!vae_is_utf8(c->field)) {
        found = "bytes that are no UTF-8";
        remedy = ": save the file as UTF-8, which spreadsheets call CSV UTF-8";
    } else if (!vae_is_printable(c->field)) {
        found = "a control character in it";
        remedy = ": rename the column";
    } else if (c->field_bytes > MAX_NAME) {
        found = "one of more than 1000 bytes";
        remedy = ": rename the column";
    }
    return remedy == NULL ? VAE_OK
                          : vae_fail(err, VAE_ERR_DATA,
                                     "%s: line %llu: column %zu: expected a name, found %.*s%s",
                                     vae_stream_name(c->s), (unsigned long long)c->line,
                                     c->columns + 1, SHOWN, found, remedy);
}

static vae_status add_name(csv *c, vae_error *err)
{
    const vae_status status = check_name(c, err);
    if (status != VAE_OK || c->columns == MAX_COLUMNS) {
        return status != VAE_OK ? status : bad(c, err, "more than 1,048,576 columns");
    }
    if ((c->columns & (c->columns - 1)) == 0) { /* room doubles at powers of two */
        size_t room = c->columns == 0 ? 1 : 2 * c->columns;
        char **more = realloc(c->names, room * sizeof *more);
        if (more == NULL) {
            return vae_fail_memory(err, room * sizeof *more, "column names");
        }
        c->names = more;
    }
    char *name = strdup(c->field);
    if (name == NULL) {
        return vae_fail_memory(err, c->field_bytes, "a column's name");
    }
    c->names[c->columns++] = name;
    return VAE_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static vae_status fail_twins(const csv *c, const char *name, vae_error *err)
{
    size_t at[2], n = 0;
    for (size_t i = 0; i < c->columns && n < 2; i++) {
        at[n] = i + 1;
        n += strcmp(c->names[i], name) == 0;
    }
    return vae_fail(err, VAE_ERR_DATA,
                    "%s: line 1: two columns are called '%.*s', column %zu and column %zu",
                    vae_stream_name(c->s), SHOWN, name, at[0], at[1]);
}

static vae_status refuse_twins(csv *c, vae_error *err)
{
    char **sorted = malloc(c->columns * sizeof *sorted);
    vae_status status = VAE_OK;
    if (sorted == NULL) {
        return vae_fail_memory(err, c->columns * sizeof *sorted, "column names");
    }
    memcpy(sorted, c->names, c->columns * sizeof *sorted);
    qsort(sorted, c->columns, sizeof *sorted, by_text);
    for (size_t i = 1; i < c->columns; i++) {
        if (strcmp(sorted[i - 1], sorted[i]) == 0) {
            TRY(fail_twins(c, sorted[i], err));
        }
    }
done:
    free(sorted);
    return status;
}

/* The column of that name, or of one of the usual names. */
static vae_status choose_labels(csv *c, vae_error *err)
{
    static const char *const usual[] = {"label", "class", "y", "target"};
    const char *want = c->options->config->label_column;
    c->label_column = SIZE_MAX;
    if (strcmp(want, "none") == 0) {
        return VAE_OK;
    }
    const bool named = want[0] != '\0';
    c->label_named = named;
    for (size_t k = 0; k < (named ? 1 : 4) && c->label_column == SIZE_MAX; k++) {
        for (size_t i = 0; i < c->columns && c->label_column == SIZE_MAX; i++) {
            if (!c->dropped[i] &&
                (named ? strcmp(c->names[i], want) == 0 : strcasecmp(c->names[i], usual[k]) == 0)) {
                c->label_column = i;
            }
        }
    }
    return named && c->label_column == SIZE_MAX
               ? vae_fail(err, VAE_ERR_DATA, "%s: no column is called '%s' (--label-column)",
                          vae_stream_name(c->s), want)
               : VAE_OK;
}

/* Marks the columns of that name. */
static vae_status drop(csv *c, const char *name, vae_error *err)
{
    vae_nearest nearest = {.word = name};
    for (size_t i = 0; i < c->columns; i++) {
        if (strcmp(c->names[i], name) == 0) {
            c->dropped[i] = true;
            return VAE_OK;
        }
        vae_nearest_offer(&nearest, c->names[i]);
    }
    if (c->options->of_model) {
        return VAE_OK; /* rows that come later need not have what the model leaves out */
    }
    return vae_fail(err, VAE_ERR_DATA, "%s: no column is called '%.*s' (--drop-columns)%s%.*s%s",
                    vae_stream_name(c->s), SHOWN, name,
                    nearest.best != NULL ? "; did you mean '" : "", SHOWN,
                    nearest.best != NULL ? nearest.best : "", nearest.best != NULL ? "'?" : "");
}

/* The names of --drop-columns have commas between them; one that holds a comma stands in quotes, as
 * in the table. */
static vae_status choose_dropped(csv *c, vae_error *err)
{
    const char *at = c->options->config->drop_columns;
    char name[VAE_PATH];
    vae_status status = VAE_OK;
    c->dropped = calloc(c->columns, sizeof *c->dropped);
    if (c->dropped == NULL) {
        TRY(vae_fail_memory(err, c->columns, "columns to leave out"));
    }
    while (*at != '\0') {
        const bool quoted = *at == '"';
        size_t n = 0;
        for (at += quoted; *at != '\0' && (quoted || *at != ','); at++) {
            if (quoted && *at == '"' && *++at != '"') {
                break;
            }
            name[n++] = *at;
        }
        name[n] = '\0';
        TRY(drop(c, name, err));
        at += *at == ',';
    }
done:
    return status;
}

/* Bytes that other files begin with whose name somebody ended in .csv. */
static vae_status refuse_other_files(csv *c, vae_error *err)
{
    static const struct {
        uint8_t bytes[2];
        const char *what;
    } others[] = {{{0xff, 0xfe}, "text in UTF-16: save it as UTF-8"},
                  {{0xfe, 0xff}, "text in UTF-16: save it as UTF-8"},
                  {{'P', 'K'}, "an archive, perhaps a workbook: save the sheet as CSV UTF-8"}};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (c->got >= 4 && memcmp(c->chunk, others[i].bytes, 2) == 0 &&
            (i < 2 || (c->chunk[2] < ' ' && c->chunk[3] < ' '))) {
            return bad(c, err, others[i].what);
        }
    }
    return VAE_OK;
}

/* What stands between the names of the first line: tabs in a .tsv file; commas, or where there is
 * none outside of quotes, semicolons or tabs. */
static void find_separator(csv *c)
{
    const char *name = vae_stream_name(c->s);
    const bool tsv =
        vae_ends_with_any_case(name, ".tsv") || vae_ends_with_any_case(name, ".tsv.gz");
    size_t n[3] = {0};
    bool quoted = false;
    for (size_t i = c->at; i < c->got && (quoted || (c->chunk[i] != '\n' && c->chunk[i] != '\r'));
         i++) {
        quoted = quoted != (c->chunk[i] == '"');
        n[0] += !quoted && c->chunk[i] == ',';
        n[1] += !quoted && c->chunk[i] == ';';
        n[2] += !quoted && c->chunk[i] == '\t';
    }
    c->separator = ',';
    if (tsv && n[2] > 0) {
        c->separator = '\t';
    } else if (n[0] == 0 && (n[1] > 0 || n[2] > 0)) {
        c->separator = n[1] > 0 ? ';' : '\t';
    }
}

static vae_status read_header(csv *c, vae_error *err)
{
    static const uint8_t bom[3] = {0xef, 0xbb, 0xbf};
    vae_status status = VAE_OK;
    csv_end end = END_FIELD;
    TRY(vae_stream_read(c->s, c->chunk, sizeof c->chunk, &c->got, err)); /* fills the chunk */
    TRY(refuse_other_files(c, err));
    if (c->got >= 3 && memcmp(c->chunk, bom, 3) == 0) {
        c->at = 3;
    }
    find_separator(c);
    while (end == END_FIELD) {
        TRY(read_field(c, &end, err));
        c->line -= end == END_RECORD; /* messages are about the line that ended */
        TRY(add_name(c, err));
        c->line += end == END_RECORD;
    }
    TRY(refuse_twins(c, err));
    TRY(choose_dropped(c, err));
    TRY(choose_labels(c, err));
    c->set->d = c->columns - (c->label_column != SIZE_MAX);
    for (size_t i = 0; i < c->columns; i++) {
        c->set->d -= c->dropped[i];
    }
    if (end == END_FILE || c->set->d == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: %s", vae_stream_name(c->s),
                     end == END_FILE ? "a header, but no rows"
                                     : "no columns but the labels and those left out"));
    }
    c->row = malloc(c->set->d * sizeof *c->row);
    if (c->row == NULL) {
        TRY(vae_fail_memory(err, c->set->d * sizeof *c->row, "a row"));
    }
    TRY(vae_narrow_begin(&c->narrowing, c->set->d, c->options->exact, err));
done:
    return status;
}

/* ---- rows ---- */

static vae_status more_rows(csv *c, vae_error *err)
{
    vae_dataset *set = c->set;
    if (set->n < c->row_room) {
        return VAE_OK;
    }
    size_t room = c->row_room == 0 ? 64 : 2 * c->row_room, items, bytes;
    if (!vae_checked_mul(room, set->d, &items) || !vae_checked_mul(items, sizeof(float), &bytes)) {
        return vae_fail_memory(err, SIZE_MAX, "the rows of a table");
    }
    void *rows = realloc(set->rows, bytes);
    if (rows == NULL) {
        return vae_fail_memory(err, bytes, "the rows of a table");
    }
    set->rows = rows;
    if (c->label_column != SIZE_MAX) {
        uint32_t *labels = realloc(set->labels, room * sizeof *labels);
        if (labels == NULL) {
            return vae_fail_memory(err, room * sizeof *labels, "the labels of a table");
        }
        set->labels = labels;
    }
    c->row_room = room;
    return VAE_OK;
}

/* What is wrong with a label, and what to do where the column was meant to be data. */
static vae_status bad_label(const csv *c, uint64_t line, const char *found, vae_error *err)
{
    return vae_fail(err, VAE_ERR_DATA,
                    "%s: line %llu, column '%.*s': expected a label, a whole number or a text, "
                    "found %s: '%.*s'; if the column holds data, --label-column none",
                    vae_stream_name(c->s), (unsigned long long)line, SHOWN,
                    c->names[c->label_column], found, SHOWN, c->field);
}

/* The label's place among those seen; an empty one is of no class. */
static vae_status take_label(csv *c, uint64_t line, uint32_t *label, vae_error *err)
{
    char name[VAE_CLASS_NAME];
    vae_status status = VAE_OK;
    *label = VAE_NO_LABEL;
    if (c->field_bytes == 0) {
        return VAE_OK;
    }
    char *comma = c->separator != ',' ? strchr(c->field, ',') : NULL;
    double number;
    if (comma != NULL) { /* 10,0 is 10; a text that holds a comma stays as it is */
        *comma = '.';
        *comma = vae_parse_real(c->field, &number) ? '.' : ',';
    }
    const char *fault = vae_class_name(name, c->field);
    if (fault != NULL) {
        return bad_label(c, line, fault, err);
    }
    TRY(vae_labeller_take(&c->labels, name, label, err));
    if (*label == VAE_NO_LABEL) {
        TRY(bad_label(c, line, "one more than 65,536 others", err));
    }
done:
    return status;
}

/* Where the comma separates no fields it may be the decimal mark, but then it is so everywhere. */
static vae_status read_number(csv *c, double *value, const char **why)
{
    char *comma = c->separator != ',' ? strchr(c->field, ',') : NULL;
    const char *point = strchr(c->field, '.');
    *why = "a number";
    if (comma != NULL && point == NULL && c->decimal != '.') {
        *comma = '.';
        c->decimal = ',';
    } else if (comma == NULL && point != NULL && c->decimal != ',') {
        c->decimal = '.';
    } else if (comma != NULL || point != NULL) {
        if (c->decimal != 0) {
            *why = c->decimal == '.' ? "a number with a decimal point, as before"
                                     : "a number with a decimal comma, as before";
        }
        return VAE_ERR_DATA;
    }
    const bool good = vae_parse_real(c->field, value) && isfinite((float)*value);
    if (!good && comma != NULL) {
        *comma = ',';
    }
    return good ? VAE_OK : VAE_ERR_DATA;
}

static const char *remedy_for(const csv *c)
{
    const char *field = c->field;
    if (*field == '\0') {
        return ": fill in or leave out rows with missing values";
    }
    if (c->separator == ',' && strpbrk(field, ";\t") != NULL) {
        return "; fields are separated by commas, as in the first line";
    }
    if (strchr(field, ',') != NULL) {
        return "; numbers have a decimal point and no marks between thousands";
    }
    return c->options->of_model ? "" : "; --drop-columns NAME leaves a column out";
}

static vae_status take_field(csv *c, size_t column, size_t place, uint64_t line, vae_error *err)
{
    const char *why;
    if (column == c->label_column) {
        return take_label(c, line, &c->set->labels[c->set->n], err);
    }
    if (c->dropped[column] || read_number(c, &c->row[place], &why) == VAE_OK) {
        return VAE_OK;
    }
    return vae_fail(err, VAE_ERR_DATA, "%s: line %llu, column '%.*s': expected %s, found '%.*s'%s",
                    vae_stream_name(c->s), (unsigned long long)line, SHOWN, c->names[column], why,
                    SHOWN, c->field, remedy_for(c));
}

/* Nothing but line ends may follow a blank line: it is behind the last row. */
static vae_status expect_blank(csv *c, uint64_t line, vae_error *err)
{
    csv_end end = END_RECORD;
    vae_status status = VAE_OK;
    while (end != END_FILE) {
        TRY(read_field(c, &end, err));
        if (end == END_FIELD || c->field_bytes > 0 || c->quoted) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: line %llu: a blank line between rows",
                         vae_stream_name(c->s), (unsigned long long)line));
        }
    }
done:
    return status;
}

/* One record; *more: is there another? Rows beyond the limit are checked, not kept. */
static vae_status read_record(csv *c, size_t limit, bool *more, vae_error *err)
{
    vae_dataset *set = c->set;
    csv_end end = END_FIELD;
    const uint64_t line = c->line;
    vae_status status = VAE_OK;
    TRY(more_rows(c, err));
    for (size_t column = 0, place = 0; end == END_FIELD; column++) {
        if (column == c->columns) {
            TRY(vae_fail(err, VAE_ERR_DATA, "%s: line %llu: more than the header's %zu fields",
                         vae_stream_name(c->s), (unsigned long long)line, c->columns));
        }
        TRY(read_field(c, &end, err));
        if (column == 0 && end != END_FIELD && c->field_bytes == 0 && !c->quoted) {
            *more = false;
            return end == END_FILE ? VAE_OK : expect_blank(c, line, err);
        }
        if (end != END_FIELD && column + 1 < c->columns) {
            TRY(vae_fail(err, VAE_ERR_DATA,
                         "%s: line %llu: expected %zu fields, as in the header, found %zu",
                         vae_stream_name(c->s), (unsigned long long)line, c->columns, column + 1));
        }
        TRY(take_field(c, column, place, line, err));
        place += column != c->label_column && !c->dropped[column];
    }
    if (limit == 0 || set->n < limit) {
        TRY(vae_narrow(&c->narrowing, (float *)set->rows + set->n * set->d, c->row, set->d, err));
        set->n++;
    }
    *more = end == END_RECORD;
done:
    return status;
}

/* A column that was taken for the labels by its name alone is announced: it is no data any more.
 * Many classes of few rows are rather the target of a regression. */
static void announce_labels(const csv *c, vae_error *err)
{
    enum { MANY = 20, FEW = 10 };
    const vae_notes *notes = err != NULL ? err->notes : NULL;
    const vae_dataset *set = c->set;
    char text[VAE_CLASSES_TEXT];
    size_t empty = 0;
    if (c->label_named) {
        return;
    }
    for (size_t i = 0; i < set->n; i++) {
        empty += set->labels[i] == VAE_NO_LABEL;
    }
    vae_note(notes, "%s: column '%.*s' holds the labels, %zu class%s: %s%s", vae_stream_name(c->s),
             SHOWN, c->names[c->label_column], set->classes.n, set->classes.n == 1 ? "" : "es",
             vae_classes_text(text, &set->classes), empty > 0 ? "; some rows are of none" : "");
    if (!c->options->of_model && set->classes.n > MANY && (set->n - empty) / FEW < set->classes.n) {
        vae_note(notes,
                 "warning: %zu classes in %zu rows: is '%.*s' a quantity, not a class? "
                 "--label-column none keeps the column as data, --label-column %.*s takes it for "
                 "labels without this warning",
                 set->classes.n, set->n, SHOWN, c->names[c->label_column], SHOWN,
                 c->names[c->label_column]);
    }
}

/* The set gets the names of its columns, without those of the labels and of what is left out. */
static void hand_over_names(csv *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->columns; i++) {
        if (i == c->label_column || c->dropped[i]) {
            free(c->names[i]);
        } else {
            c->names[kept++] = c->names[i];
        }
    }
    c->set->column_names = c->names;
    c->names = NULL;
    c->columns = 0;
}

/* What was recognized, as it could be something else. */
static void announce(const csv *c, const vae_error *err)
{
    if (c->separator != ',') {
        vae_note(err != NULL ? err->notes : NULL, "%s: fields are separated by %s%s",
                 vae_stream_name(c->s), c->separator == ';' ? "semicolons" : "tabs",
                 c->decimal == ',' ? ", decimals by commas" : "");
    }
}

static vae_status load(vae_dataset *set, vae_stream *s, const vae_data_options *options,
                       vae_error *err)
{
    csv *c = calloc(1, sizeof *c);
    bool more = true;
    if (c == NULL) {
        return vae_fail_memory(err, sizeof *c, "a table");
    }
    c->s = s;
    c->set = set;
    c->options = options;
    c->line = 1;
    vae_status status = VAE_OK;
    TRY(read_header(c, err));
    while (more) {
        TRY(read_record(c, options->limit, &more, err));
    }
    if (set->n == 0) {
        TRY(vae_fail(err, VAE_ERR_DATA, "%s: a header, but no rows", vae_stream_name(s)));
    }
    set->dtype = VAE_F32;
    set->height = set->channels = 1;
    set->width = set->d;
    if (set->labels != NULL) {
        TRY(vae_labeller_finish(&c->labels, &set->classes, set->labels, set->n, err));
        announce_labels(c, err);
    }
    hand_over_names(c);
    vae_narrow_end(&c->narrowing, set, err);
    announce(c, err);
done:
    for (size_t i = 0; i < c->columns; i++) {
        free(c->names[i]);
    }
    vae_labeller_clear(&c->labels);
    free(c->names);
    free(c->dropped);
    free(c->row);
    vae_narrow_close(&c->narrowing);
    free(c->field);
    free(c);
    return status;
}

static const char *const own_options[] = {"label-column", "drop-columns", NULL};

const vae_reader vae_csv_reader = {.name = "CSV",
                                   .source = VAE_SOURCE_FILE,
                                   .kind = VAE_KIND_TABLE,
                                   .endings = {".csv", ".csv.gz", ".tsv", ".tsv.gz"},
                                   .options = own_options,
                                   .load_stream = load};
