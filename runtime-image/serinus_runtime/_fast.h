/* What _fast.c has from the other files of the extension. */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

PyObject *fast_add_line(PyObject *self, PyObject *const *args, Py_ssize_t given);
PyObject *fast_answer(PyObject *self, PyObject *const *args, Py_ssize_t given);
PyObject *fast_known_head(PyObject *self, PyObject *const *args, Py_ssize_t given);
PyObject *fast_line(PyObject *self, PyObject *const *args, Py_ssize_t given);
PyObject *fast_numbered(PyObject *self, PyObject *const *args, Py_ssize_t given);

/* The digits of `value`, at least `width` of them. */
static inline char *decimal(char *out, uint64_t value, int width)
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
