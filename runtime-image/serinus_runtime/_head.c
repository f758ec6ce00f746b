/* Heads: of requests that came before, and of answers. */
#include "_fast.h"
#include <string.h>

enum { HEAD = 1024, PARTS = 6 };

PyObject *fast_known_head(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    if (given != 2 || !PyBytes_Check(args[0]) || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "known_head(data: bytes, heads: dict)");
        return NULL;
    }
    const char *data = PyBytes_AS_STRING(args[0]);
    Py_ssize_t length = PyBytes_GET_SIZE(args[0]);
    const char *end = memmem(data, (size_t)(length < HEAD ? length : HEAD), "\r\n\r\n", 4);
    if (end == NULL)
        Py_RETURN_NONE;
    PyObject *raw = PyBytes_FromStringAndSize(data, end - data);
    if (raw == NULL)
        return NULL;
    PyObject *head = PyDict_GetItemWithError(args[1], raw);
    Py_DECREF(raw);
    if (head == NULL) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    PyObject *body = PyBytes_FromStringAndSize(end + 4, data + length - end - 4);
    if (body == NULL)
        return NULL;
    PyObject *found = PyTuple_Pack(2, head, body);
    Py_DECREF(body);
    return found;
}

static char *put(char *out, const char *text, Py_ssize_t size)
{
    memcpy(out, text, (size_t)size);
    return out + size;
}

PyObject *fast_answer(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    const char *names[PARTS] = {"", "", "x-request-id: ", "\r\ncontent-type: ", "", "\r\n"};
    int good = given == PARTS + 1;
    Py_ssize_t size = 100;
    for (int part = 0; good && part < PARTS; part++) {
        good = PyBytes_Check(args[part]);
        size += good ? PyBytes_GET_SIZE(args[part]) : 0;
    }
    if (!good) {
        PyErr_SetString(PyExc_TypeError, "answer(status_line: bytes, common: bytes, request_id: bytes, content_type: bytes, "
                                         "headers: bytes, body: bytes, silent: bool)");
        return NULL;
    }
    int silent = PyObject_IsTrue(args[PARTS]);
    if (silent < 0)
        return NULL;
    PyObject *made = PyBytes_FromStringAndSize(NULL, size);
    if (made == NULL)
        return NULL;
    char *start = PyBytes_AS_STRING(made), *out = start;
    for (int part = 0; part < PARTS; part++) {
        out = put(out, names[part], (Py_ssize_t)strlen(names[part]));
        if (part < PARTS - 1 || !silent)
            out = put(out, PyBytes_AS_STRING(args[part]), PyBytes_GET_SIZE(args[part]));
        if (part == 3) {
            out = put(out, "\r\ncontent-length: ", 18);
            out = put(decimal(out, (uint64_t)PyBytes_GET_SIZE(args[PARTS - 1]), 1), "\r\n", 2);
        }
    }
    if (_PyBytes_Resize(&made, out - start) < 0)
        return NULL;
    return made;
}

PyObject *fast_numbered(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    unsigned long long number = 0;
    if (given == 2 && PyBytes_Check(args[0]) && PyLong_Check(args[1]))
        number = PyLong_AsUnsignedLongLong(args[1]);
    else
        PyErr_SetString(PyExc_TypeError, "numbered(prefix: bytes, number: int)");
    if (PyErr_Occurred())
        return NULL;
    char digits[16];
    int at = 16;
    do {
        digits[--at] = "0123456789abcdef"[number & 15];
        number >>= 4;
    } while (number != 0);
    Py_ssize_t size = PyBytes_GET_SIZE(args[0]);
    PyObject *made = PyBytes_FromStringAndSize(NULL, size + 16 - at);
    if (made != NULL)
        put(put(PyBytes_AS_STRING(made), PyBytes_AS_STRING(args[0]), size), digits + at, 16 - at);
    return made;
}
