/* What is left of a request when everything else is compiled: numbers. fast.py has the same in Python, and says what it
 * is for.
 *
 * floats is exact: a number of at most 19 digits is read as an integer times a power of ten. Where both are exact in a double
 * (Clinger, 1990) one operation rounds correctly; else the x87's 64 bits are used, and whatever lies so near the middle of
 * two doubles that rounding twice could go wrong is left to the caller, like everything that is not plain.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { EXACT_TENS = 22, LONG_TENS = 27, MOST_DIGITS = 19 };

/* 0 when the value cannot be told exactly here. */
static int scaled(uint64_t digits, int power, double *value)
{
    int far = power < 0 ? -power : power;
    if (digits <= (UINT64_C(1) << 53) && far <= EXACT_TENS && FLT_EVAL_METHOD == 0) {
        *value = power < 0 ? (double)digits / TENS[far] : (double)digits * TENS[far];
        return 1;
    }
#if LDBL_MANT_DIG == 64
    if (digits == 0) {
        *value = 0.0;
        return 1;
    }
    if (far > LONG_TENS)
        return 0;
    long double ten = TENS[far > EXACT_TENS ? EXACT_TENS : far];
    for (int more = far - EXACT_TENS; more > 0; more--)
        ten *= 10.0L;
    long double exact = power < 0 ? (long double)digits / ten : (long double)digits * ten;
    uint64_t mantissa;
    memcpy(&mantissa, &exact, sizeof mantissa);
    unsigned low = mantissa & 0x7ff;
    if (low >= 0x3ff && low <= 0x401)
        return 0;
    *value = (double)exact;
    return 1;
#else
    return 0;
#endif
}

static const char *number(const char *at, const char *end, double *value)
{
    int negative = at < end && *at == '-';
    at += negative;
    uint64_t digits = 0;
    int seen = 0, power = 0;
    const char *first = at;
    for (; at < end && (unsigned)(*at - '0') < 10; at++) {
        digits = digits * 10 + (unsigned)(*at - '0');
        seen += digits != 0;
        if (seen > MOST_DIGITS)
            return NULL;
    }
    if (at == first || (*first == '0' && at - first > 1))
        return NULL;
    /* The integer -0 is a plain 0 to Python's decoder. */
    if (negative && digits == 0 && (at >= end || (*at != '.' && *at != 'e' && *at != 'E')))
        return NULL;
    if (at < end && *at == '.') {
        first = ++at;
        for (; at < end && (unsigned)(*at - '0') < 10; at++) {
            digits = digits * 10 + (unsigned)(*at - '0');
            seen += digits != 0;
            if (seen > MOST_DIGITS || at - first > 300)
                return NULL;
        }
        if (at == first)
            return NULL;
        power = -(int)(at - first);
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        int down = at < end && *at == '-';
        at += at < end && (*at == '-' || *at == '+');
        int given = 0;
        first = at;
        for (; at < end && (unsigned)(*at - '0') < 10; at++) {
            given = given * 10 + (*at - '0');
            if (given > 999)
                return NULL;
        }
        if (at == first)
            return NULL;
        power += down ? -given : given;
    }
    if (!scaled(digits, power, value))
        return NULL;
    if (negative)
        *value = -*value;
    return at;
}

static const char *spaces(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    return at;
}

/* The end of the list, or NULL. */
static const char *list(const char *at, const char *end, Py_ssize_t count, int wide, char *out)
{
    if (at >= end || *at != '[')
        return NULL;
    for (Py_ssize_t index = 0; index < count; index++) {
        double value;
        at = spaces(at + 1, end);
        at = number(at, end, &value);
        if (at == NULL)
            return NULL;
        at = spaces(at, end);
        if (at >= end || *at != (index == count - 1 ? ']' : ','))
            return NULL;
        if (wide) {
            memcpy(out, &value, sizeof value);
            out += sizeof value;
        } else {
            float narrow = (float)value;
            if (isinf(narrow))
                return NULL;
            memcpy(out, &narrow, sizeof narrow);
            out += sizeof narrow;
        }
    }
    return at + 1;
}

static PyObject *floats(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    if (given != 4 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "floats(text: bytes, start: int, count: int, wide: bool)");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]), count = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred())
        return NULL;
    int wide = PyObject_IsTrue(args[3]);
    if (wide < 0)
        return NULL;
    Py_ssize_t length = PyBytes_GET_SIZE(args[0]);
    /* A number and what follows it take two bytes: a count that cannot be there must not cost memory. */
    if (start < 0 || start > length || count < 1 || count > (length - start) / 2)
        Py_RETURN_NONE;
    PyObject *made = PyBytes_FromStringAndSize(NULL, count * (wide ? 8 : 4));
    if (made == NULL)
        return NULL;
    const char *text = PyBytes_AS_STRING(args[0]);
    const char *end = list(text + start, text + length, count, wide, PyBytes_AS_STRING(made));
    if (end == NULL) {
        Py_DECREF(made);
        Py_RETURN_NONE;
    }
    return Py_BuildValue("(Nn)", made, (Py_ssize_t)(end - text));
}

/* The digits of `value`, at least `width` of them. */
static char *decimal(char *out, uint64_t value, int width)
{
    char reversed[20];
    int size = 0;
    do {
        reversed[size++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0 || size < width);
    while (size > 0)
        *out++ = reversed[--size];
    return out;
}

static char *literal(char *out, const char *text)
{
    size_t size = strlen(text);
    memcpy(out, text, size);
    return out + size;
}

/* `name` and then `seconds` in milliseconds, to a microsecond. */
static char *milliseconds(char *out, const char *name, double seconds)
{
    uint64_t micros = seconds > 0.0 && seconds < 1e12 ? (uint64_t)(seconds * 1e6 + 0.5) : 0;
    out = decimal(literal(out, name), micros / 1000, 1);
    *out++ = '.';
    return decimal(out, micros % 1000, 3);
}

static PyObject *times(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    double at[6];
    if (given != 8 || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "times(wall: float, request_id: bytes, code: int, received: float, queued: float, "
                                         "started: float, finished: float, answered: float)");
        return NULL;
    }
    long code = PyLong_AsLong(args[2]);
    at[0] = PyFloat_AsDouble(args[0]);
    for (int index = 1; index < 6; index++)
        at[index] = PyFloat_AsDouble(args[index + 2]);
    if (PyErr_Occurred())
        return NULL;
    double received = at[1], queued = at[2], started = at[3], finished = at[4], answered = at[5];
    double moment = answered + at[0];
    uint64_t wall = moment > 0.0 && moment < 1e12 ? (uint64_t)(moment * 1e6 + 0.5) : 0;
    Py_ssize_t length = PyBytes_GET_SIZE(args[1]);
    PyObject *made = PyBytes_FromStringAndSize(NULL, 300 + length);
    if (made == NULL)
        return NULL;
    char *start = PyBytes_AS_STRING(made);
    char *out = decimal(literal(start, "{\"time\":"), wall / 1000000, 1);
    *out++ = '.';
    out = literal(decimal(out, wall % 1000000, 6), ",\"request_id\":\"");
    memcpy(out, PyBytes_AS_STRING(args[1]), (size_t)length);
    out = decimal(literal(out + length, "\",\"code\":"), code > 0 ? (uint64_t)code : 0, 1);
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
    if (_PyBytes_Resize(&made, out - start) < 0)
        return NULL;
    return made;
}

static PyMethodDef methods[] = {
    {"floats", (PyCFunction)(void (*)(void))floats, METH_FASTCALL, "See fast.py."},
    {"times", (PyCFunction)(void (*)(void))times, METH_FASTCALL, "See fast.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "serinus_runtime._fast", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast(void)
{
    return PyModule_Create(&module);
}
