/* A line of the prediction log in one pass: times, the hash of the input, and what the caller has of it as text. */
#include "_fast.h"
#include <string.h>

enum { LARGEST = 16384, BLOCK = 128, HASH = 16, KIND = 512 };

/* BLAKE2b, RFC 7693, without a key, of 16 bytes. */
static const uint64_t IV[8] = {
    UINT64_C(0x6a09e667f3bcc908), UINT64_C(0xbb67ae8584caa73b), UINT64_C(0x3c6ef372fe94f82b), UINT64_C(0xa54ff53a5f1d36f1),
    UINT64_C(0x510e527fade682d1), UINT64_C(0x9b05688c2b3e6c1f), UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179)};
static const uint8_t SIGMA[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static inline uint64_t turned(uint64_t value, int by)
{
    return (value >> by) | (value << (64 - by));
}

static inline void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y)
{
    v[a] += v[b] + x;
    v[d] = turned(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = turned(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = turned(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = turned(v[b] ^ v[c], 63);
}

static void compress(uint64_t *state, const unsigned char *block, uint64_t seen, int last)
{
    uint64_t v[16], m[16];
    memcpy(m, block, BLOCK);
    memcpy(v, state, 64);
    memcpy(v + 8, IV, 64);
    v[12] ^= seen;
    if (last)
        v[14] = ~v[14];
#pragma GCC unroll 12
    for (int round = 0; round < 12; round++) {
        const uint8_t *s = SIGMA[round % 10];
        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int at = 0; at < 8; at++)
        state[at] ^= v[at] ^ v[at + 8];
}

/* The hash of `first` and `second` in hex. */
static char *hashed(char *out, const char *first, size_t size, const char *second, size_t more)
{
    uint64_t state[8];
    unsigned char block[BLOCK];
    size_t left = size + more, at = 0;
    uint64_t seen = 0;
    memcpy(state, IV, sizeof state);
    state[0] ^= 0x01010000 ^ HASH;
    do {
        size_t filled = left < BLOCK ? left : BLOCK;
        for (size_t here = 0; here < filled;) {
            const char *from = at < size ? first + at : second + (at - size);
            size_t there = at < size ? size - at : size + more - at;
            size_t part = filled - here < there ? filled - here : there;
            memcpy(block + here, from, part);
            here += part;
            at += part;
        }
        memset(block + filled, 0, BLOCK - filled);
        seen += filled;
        left -= filled;
        compress(state, block, seen, left == 0);
    } while (left > 0);
    unsigned char made[HASH];
    memcpy(made, state, HASH);
    for (int byte = 0; byte < HASH; byte++) {
        *out++ = "0123456789abcdef"[made[byte] >> 4];
        *out++ = "0123456789abcdef"[made[byte] & 15];
    }
    return out;
}

static inline char *literal(char *out, const char *text)
{
    size_t size = strlen(text);
    memcpy(out, text, size);
    return out + size;
}

static char *copied(char *out, PyObject *bytes)
{
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    memcpy(out, PyBytes_AS_STRING(bytes), (size_t)size);
    return out + size;
}

/* `name` and then `seconds` in milliseconds, to a microsecond. */
static inline char *milliseconds(char *out, const char *name, double seconds)
{
    uint64_t micros = seconds > 0.0 && seconds < 1e12 ? (uint64_t)(seconds * 1e6 + 0.5) : 0;
    out = decimal(literal(out, name), micros / 1000, 1);
    unsigned rest = (unsigned)(micros % 1000);
    *out++ = '.';
    *out++ = (char)('0' + rest / 100);
    *out++ = (char)('0' + rest / 10 % 10);
    *out++ = (char)('0' + rest % 10);
    return out;
}

/* What comes before the values in the hash: name, type and shape, as numpy writes them. NULL: not a plain array. */
static char *kind(char *out, PyObject *name, const Py_buffer *view)
{
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(name, &size);
    if (text == NULL || size > KIND - 300 || view->ndim > 8 || view->itemsize > 8)
        return NULL;
    const char *format = view->format == NULL ? "B" : view->format;
    /* Only little-endian numbers come here, so that all of these mean what `itemsize` says. */
    if (format[0] != 0 && strchr("=^@<", format[0]) != NULL)
        format++;
    if (format[0] == 0 || format[1] != 0)
        return NULL;
    char letter = strchr("bhilq", format[0])   ? 'i'
                  : strchr("BHILQ", format[0]) ? 'u'
                  : strchr("efd", format[0])   ? 'f'
                  : format[0] == '?'           ? 'b'
                                               : 0;
    if (letter == 0)
        return NULL;
    memcpy(out, text, (size_t)size);
    out += size;
    *out++ = 0;
    *out++ = view->itemsize == 1 ? '|' : '<';
    *out++ = letter;
    *out++ = (char)('0' + view->itemsize);
    *out++ = 0;
    *out++ = '(';
    for (int at = 0; at < view->ndim; at++) {
        out = decimal(at == 0 ? out : literal(out, ", "), (uint64_t)view->shape[at], 1);
        if (view->ndim == 1)
            *out++ = ',';
    }
    *out++ = ')';
    *out++ = 0;
    return out;
}

/* The hash of `array`; NULL where that is left to the caller. */
static char *input_hash(char *out, PyObject *name, PyObject *array)
{
    Py_buffer view;
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__)
        return NULL;
    if (PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) {
        PyErr_Clear();
        return NULL;
    }
    char before[KIND];
    char *end = view.len <= LARGEST ? kind(before, name, &view) : NULL;
    if (end == NULL)
        PyErr_Clear();
    else
        out = hashed(out, before, (size_t)(end - before), view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return end == NULL ? NULL : out;
}

/* What was asked, by its hash: `array` is an array, or the bytes of one, and `name` what comes before them. */
static char *asked(char *out, long rows, PyObject *name, PyObject *array)
{
    out = decimal(literal(out, ",\"rows\":"), rows > 0 ? (uint64_t)rows : 0, 1);
    out = literal(out, ",\"input_hash\":\"");
    if (PyBytes_Check(array))
        out = hashed(out, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name), PyBytes_AS_STRING(array),
                     (size_t)PyBytes_GET_SIZE(array));
    else
        out = input_hash(out, name, array);
    if (out != NULL)
        *out++ = '"';
    return out;
}

enum { ARGUMENTS = 13, SLACK = 400 };

/* Bytes that are enough for the line; -1 with an error. */
static Py_ssize_t enough(PyObject *const *args, Py_ssize_t given)
{
    if (given != ARGUMENTS || !PyBytes_Check(args[1]) || !PyBytes_Check(args[11]) || !PyBytes_Check(args[12]) ||
        !(PyBytes_Check(args[10]) ? PyBytes_Check(args[9]) : PyUnicode_Check(args[9]))) {
        PyErr_SetString(PyExc_TypeError,
                        "wall: float, request_id: bytes, code: int, received: float, queued: float, started: float, "
                        "finished: float, answered: float, rows: int, name: str, array: object, middle: bytes, tail: bytes");
        return -1;
    }
    return SLACK + PyBytes_GET_SIZE(args[1]) + PyBytes_GET_SIZE(args[11]) + PyBytes_GET_SIZE(args[12]);
}

/* The end of the line at `out`. NULL with an error; NULL without: left to the caller. */
static char *written(char *out, PyObject *const *args)
{
    double at[6];
    long code = PyLong_AsLong(args[2]), rows = PyLong_AsLong(args[8]);
    at[0] = PyFloat_AsDouble(args[0]);
    for (int index = 1; index < 6; index++)
        at[index] = PyFloat_AsDouble(args[index + 2]);
    if (PyErr_Occurred())
        return NULL;
    double received = at[1], queued = at[2], started = at[3], finished = at[4], answered = at[5];
    double moment = answered + at[0];
    uint64_t wall = moment > 0.0 && moment < 1e12 ? (uint64_t)(moment * 1e6 + 0.5) : 0;
    out = decimal(literal(out, "{\"time\":"), wall / 1000000, 1);
    *out++ = '.';
    out = literal(decimal(out, wall % 1000000, 6), ",\"request_id\":\"");
    out = copied(out, args[1]);
    out = decimal(literal(out, "\",\"code\":"), code > 0 ? (uint64_t)code : 0, 1);
    out = milliseconds(out, ",\"ms\":{\"total\":", answered - received);
    if (queued != 0.0) {
        out = milliseconds(out, ",\"decode\":", queued - received);
        if (started != 0.0) {
            out = milliseconds(out, ",\"queue\":", started - queued);
            out = milliseconds(out, ",\"infer\":", finished - started);
            out = milliseconds(out, ",\"encode\":", answered - finished);
        }
    }
    *out++ = '}';
    if (args[10] != Py_None && (out = asked(out, rows, args[9], args[10])) == NULL)
        return NULL;
    return copied(copied(out, args[11]), args[12]);
}

PyObject *fast_line(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    Py_ssize_t size = enough(args, given);
    PyObject *made = size < 0 ? NULL : PyBytes_FromStringAndSize(NULL, size);
    if (made == NULL)
        return NULL;
    char *start = PyBytes_AS_STRING(made), *end = written(start, args);
    if (end == NULL) {
        Py_DECREF(made);
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    if (_PyBytes_Resize(&made, end - start) < 0)
        return NULL;
    return made;
}

PyObject *fast_add_line(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    if (given < 1 || !PyByteArray_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "add_line(lines: bytearray, ...)");
        return NULL;
    }
    Py_ssize_t more = enough(args + 1, given - 1), used = PyByteArray_GET_SIZE(args[0]);
    if (more < 0)
        return NULL;
    /* Each time as much again: a bytearray by itself grows by an eighth. */
    if (used + more >= ((PyByteArrayObject *)args[0])->ob_alloc && PyByteArray_Resize(args[0], 2 * used + more) < 0)
        return NULL;
    if (PyByteArray_Resize(args[0], used + more) < 0)
        return NULL;
    char *start = PyByteArray_AS_STRING(args[0]), *end = written(start + used, args + 1);
    if (PyByteArray_Resize(args[0], end == NULL ? used : end - start) < 0)
        return NULL;
    if (end == NULL && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(end != NULL);
}
