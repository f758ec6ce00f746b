/* What is left of a request when everything else is compiled: numbers, heads (_head.c), and lines of the prediction log
 * (_line.c). fast.py has the same in Python, and says what it is for.
 *
 * floats is exact: a number of at most 19 digits is read as an integer times a power of ten. Where both are exact in a double
 * (Clinger, 1990) one operation rounds correctly; else the x87's 64 bits are used, and whatever lies so near the middle of
 * two doubles that rounding twice could go wrong is left to the caller, like everything that is not plain.
 */
#include "_fast.h"
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { EXACT_TENS = 22, LONG_TENS = 27, MOST_DIGITS = 19, PREFIX = 512 };

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

/* Below, `at` never passes the NUL that Python puts behind its bytes: it is no digit, and no part of a number. */
static unsigned digit_of(const char *at)
{
    return (unsigned)(unsigned char)*at - '0';
}

/* More than MOST_DIGITS characters from `at` to `end`: does it matter? Zeros at the front do not, nor does a point. */
static int too_many(const char *at, const char *end)
{
    while (at < end && (*at == '0' || *at == '.'))
        at++;
    int seen = 0;
    for (; at < end; at++)
        seen += digit_of(at) < 10;
    return seen > MOST_DIGITS;
}

static const char *number(const char *at, double *value)
{
    int negative = *at == '-';
    at += negative;
    uint64_t digits = 0;
    int power = 0;
    unsigned next;
    const char *first = at;
    for (; (next = digit_of(at)) < 10; at++)
        digits = digits * 10 + next;
    if (at == first || (*first == '0' && at - first > 1))
        return NULL;
    if (*at == '.') {
        const char *point = at++;
        for (; (next = digit_of(at)) < 10; at++)
            digits = digits * 10 + next;
        if (at == point + 1 || at - point > 300)
            return NULL;
        power = -(int)(at - point - 1);
    } else if (negative && digits == 0 && *at != 'e' && *at != 'E') {
        /* The integer -0 is a plain 0 to Python's decoder. */
        return NULL;
    }
    if (at - first > MOST_DIGITS && too_many(first, at))
        return NULL;
    if (*at == 'e' || *at == 'E') {
        at++;
        int down = *at == '-';
        at += *at == '-' || *at == '+';
        int given = 0;
        first = at;
        for (; (next = digit_of(at)) < 10; at++) {
            given = given * 10 + (int)next;
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

static const char *spaces(const char *at)
{
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
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
        at = number(spaces(at + 1), &value);
        if (at == NULL)
            return NULL;
        at = spaces(at);
        if (*at != (index == count - 1 ? ']' : ','))
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

/* The list at `start`, as bytes, and where it ends; NULL without an error: left to the caller. */
static PyObject *converted(PyObject *text, Py_ssize_t start, Py_ssize_t count, int wide, Py_ssize_t *after)
{
    Py_ssize_t length = PyBytes_GET_SIZE(text);
    /* A number and what follows it take two bytes: a count that cannot be there must not cost memory. */
    if (start < 0 || start > length || count < 1 || count > (length - start) / 2)
        return NULL;
    PyObject *made = PyBytes_FromStringAndSize(NULL, count * (wide ? 8 : 4));
    if (made == NULL)
        return NULL;
    const char *begin = PyBytes_AS_STRING(text);
    const char *end = list(begin + start, begin + length, count, wide, PyBytes_AS_STRING(made));
    if (end == NULL)
        Py_CLEAR(made);
    else
        *after = end - begin;
    return made;
}

static PyObject *left(void)
{
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *floats(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    if (given != 4 || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "floats(text: bytes, start: int, count: int, wide: bool)");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[1]), count = PyLong_AsSsize_t(args[2]), after = 0;
    if (PyErr_Occurred())
        return NULL;
    int wide = PyObject_IsTrue(args[3]);
    if (wide < 0)
        return NULL;
    PyObject *made = converted(args[0], start, count, wide, &after);
    return made == NULL ? left() : Py_BuildValue("(Nn)", made, after);
}

static PyObject *known_body(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyBytes_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "known_body(body: bytes, forms: dict)");
        return NULL;
    }
    const char *body = PyBytes_AS_STRING(args[0]);
    Py_ssize_t length = PyBytes_GET_SIZE(args[0]);
    const char *at = memmem(body, (size_t)(length < PREFIX ? length : PREFIX), "\"data\":", 7);
    if (at == NULL || body + length - at < 9)
        Py_RETURN_NONE;
    at += at[7] == '[' ? 7 : 8;
    if (*at != '[')
        Py_RETURN_NONE;
    PyObject *before = PyBytes_FromStringAndSize(body, at - body);
    if (before == NULL)
        return NULL;
    PyObject *form = PyDict_GetItemWithError(args[1], before);
    Py_DECREF(before);
    if (form == NULL)
        return left();
    if (!PyTuple_Check(form) || PyTuple_GET_SIZE(form) != 4 || !PyBytes_Check(PyTuple_GET_ITEM(form, 2))) {
        PyErr_SetString(PyExc_TypeError, "a form is (count, wide, suffix, what it means)");
        return NULL;
    }
    Py_ssize_t count = PyLong_AsSsize_t(PyTuple_GET_ITEM(form, 0)), after = 0;
    PyObject *behind = PyTuple_GET_ITEM(form, 2);
    PyObject *made = converted(args[0], at - body, count, PyTuple_GET_ITEM(form, 1) == Py_True, &after);
    if (made == NULL)
        return left();
    if (length - after != PyBytes_GET_SIZE(behind) ||
        memcmp(body + after, PyBytes_AS_STRING(behind), (size_t)(length - after)) != 0) {
        Py_DECREF(made);
        Py_RETURN_NONE;
    }
    PyObject *found = PyTuple_Pack(2, PyTuple_GET_ITEM(form, 3), made);
    Py_DECREF(made);
    return found;
}

static PyMethodDef methods[] = {
    {"add_line", (PyCFunction)(void (*)(void))fast_add_line, METH_FASTCALL, "See fast.py."},
    {"answer", (PyCFunction)(void (*)(void))fast_answer, METH_FASTCALL, "See fast.py."},
    {"floats", (PyCFunction)(void (*)(void))floats, METH_FASTCALL, "See fast.py."},
    {"known_body", (PyCFunction)(void (*)(void))known_body, METH_FASTCALL, "See fast.py."},
    {"known_head", (PyCFunction)(void (*)(void))fast_known_head, METH_FASTCALL, "See fast.py."},
    {"line", (PyCFunction)(void (*)(void))fast_line, METH_FASTCALL, "See fast.py."},
    {"numbered", (PyCFunction)(void (*)(void))fast_numbered, METH_FASTCALL, "See fast.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "serinus_runtime._fast", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fast(void)
{
    return PyModule_Create(&module);
}
