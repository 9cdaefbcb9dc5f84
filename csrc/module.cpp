// The Python module `mtl_ext._C`. Importing it runs the static registrations of every kernel in the library; the module
// itself only says how the library was built. Limited API: one binary serves Python 3.11 and later.
#include <Python.h>

namespace {

#ifdef MTL_WITH_CUDA
constexpr const char* kCudaArchitectures = MTL_CUDA_ARCHITECTURES;
#else
constexpr const char* kCudaArchitectures = "";
#endif

PyObject* build_info(PyObject*, PyObject*) {
  return Py_BuildValue("{s:s,s:s}", "compiler", __VERSION__, "cuda_architectures", kCudaArchitectures);
}

PyMethodDef methods[] = {
    {"build_info", build_info, METH_NOARGS, "Compiler and CUDA architectures (empty: built without CUDA)."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&definition); }
