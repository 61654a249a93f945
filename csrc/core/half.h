/* float32 to and from the 16-bit types, in whole-number arithmetic that the compiler can vectorise.
 * Rounding is to nearest, ties to even; a NaN stays a NaN. */
#ifndef RLSD_CORE_HALF_H_
#define RLSD_CORE_HALF_H_

#include <cstdint>
#include <cstring>

#include "core/host_device.h"

namespace rlsd {

RLSD_HD float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

RLSD_HD uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

RLSD_HD float bf16_to_float(uint16_t bits) { return float_from_bits(uint32_t{bits} << 16); }

RLSD_HD uint16_t float_to_bf16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet_nan : rounded);
}

/* Exponent and mantissa move to float's places; a multiplication by 2^112 then mends the exponent's bias
 * and normalises subnormals exactly. Infinity and NaN get float's largest exponent. */
RLSD_HD float f16_to_float(uint16_t bits) {
  const uint32_t magnitude = uint32_t{bits} & 0x7FFFu;
  const uint32_t scaled = bits_of_float(float_from_bits(magnitude << 13) * 0x1p112f);
  const uint32_t special = (magnitude << 13) | 0x7F800000u;
  const uint32_t sign = (uint32_t{bits} & 0x8000u) << 16;
  return float_from_bits((magnitude >= 0x7C00u ? special : scaled) | sign);
}

RLSD_HD uint16_t float_to_f16(float value) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  /* Below 2^-14 the addition of 0.5 rounds at half's last subnormal bit (2^-24) and leaves it in the low bits. */
  const uint32_t subnormal = bits_of_float(float_from_bits(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t large = magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u;
  return static_cast<uint16_t>(sign | (magnitude >= 0x477FF000u ? large : finite));
}

}  // namespace rlsd

#endif
