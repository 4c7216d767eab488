// Arrays from Python, checked: what is wrong is said with the array's name.
#pragma once

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <initializer_list>
#include <string>

namespace harness {

namespace nb = nanobind;
using Array = nb::ndarray<nb::ro>;
using Output = nb::ndarray<>;

struct Type {
    uint8_t code;
    uint8_t bits;
    const char* name;
};

inline constexpr Type kFloat32{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 32, "float32"};
inline constexpr Type kFloat16{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, "float16"};
inline constexpr Type kBfloat16{static_cast<uint8_t>(nb::dlpack::dtype_code::Bfloat), 16, "bfloat16"};
inline constexpr Type kUint8{static_cast<uint8_t>(nb::dlpack::dtype_code::UInt), 8, "uint8"};
inline constexpr Type kUint16{static_cast<uint8_t>(nb::dlpack::dtype_code::UInt), 16, "uint16"};
inline constexpr Type kInt32{static_cast<uint8_t>(nb::dlpack::dtype_code::Int), 32, "int32"};

template <class A>
bool is(const A& array, const Type& type) {
    return array.dtype().code == type.code && array.dtype().bits == type.bits && array.dtype().lanes == 1;
}

inline std::string shape_text(std::initializer_list<int64_t> shape) {
    std::string text = "(";
    for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
    return text + ")";
}

template <class A>
std::string shape_of(const A& array) {
    std::string text = "(";
    for (size_t i = 0; i < array.ndim(); ++i) text += (i ? ", " : "") + std::to_string(array.shape(i));
    return text + ")";
}

[[noreturn]] inline void fail(const std::string& message) { throw nb::value_error(message.c_str()); }

// The data of a contiguous CPU array of that type and shape; an int64 of -1 in `shape` accepts any size.
template <class T, class A>
T* data(const A& array, const char* name, const Type& type, std::initializer_list<int64_t> shape) {
    const std::string prefix = std::string(name) + ": ";
    if (array.device_type() != nb::device::cpu::value) fail(prefix + "is on another device; accepted is cpu");
    if (!is(array, type)) {
        const auto d = array.dtype();
        static const char* const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
        const std::string kind = d.code < 7 ? kinds[d.code] : "type" + std::to_string(d.code);
        fail(prefix + "has dtype " + kind + std::to_string(d.bits) + "; accepted is " + type.name);
    }
    bool fits = array.ndim() == shape.size();
    size_t i = 0;
    for (const int64_t size : shape) {
        if (fits && size >= 0 && static_cast<int64_t>(array.shape(i)) != size) fits = false;
        ++i;
    }
    if (!fits) fail(prefix + "has shape " + shape_of(array) + "; accepted is " + shape_text(shape));
    int64_t stride = 1;
    for (size_t k = array.ndim(); k-- > 0;) {
        if (array.shape(k) != 1 && array.size() != 0 && array.stride(k) != stride)
            fail(prefix + "is not contiguous; accepted is a contiguous tensor");
        stride *= static_cast<int64_t>(array.shape(k));
    }
    return static_cast<T*>(const_cast<void*>(static_cast<const void*>(array.data())));
}

}  // namespace harness
