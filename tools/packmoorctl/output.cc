#include "output.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <ctime>

namespace packmoor::ctl {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using nlohmann::ordered_json;

ordered_json toJson(const Message& message);

ordered_json single(const Message& message, const Reflection& reflection,
                    const FieldDescriptor* field) {
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return reflection.GetInt32(message, field);
    case FieldDescriptor::CPPTYPE_INT64: return reflection.GetInt64(message, field);
    case FieldDescriptor::CPPTYPE_UINT32: return reflection.GetUInt32(message, field);
    case FieldDescriptor::CPPTYPE_UINT64: return reflection.GetUInt64(message, field);
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection.GetDouble(message, field);
    case FieldDescriptor::CPPTYPE_FLOAT: return reflection.GetFloat(message, field);
    case FieldDescriptor::CPPTYPE_BOOL: return reflection.GetBool(message, field);
    case FieldDescriptor::CPPTYPE_ENUM: return reflection.GetEnum(message, field)->name();
    case FieldDescriptor::CPPTYPE_STRING: return reflection.GetString(message, field);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      if (!reflection.HasField(message, field)) return nullptr;
      return toJson(reflection.GetMessage(message, field));
  }
  return nullptr;
}

ordered_json repeated(const Message& message, const Reflection& reflection,
                      const FieldDescriptor* field) {
  ordered_json list = ordered_json::array();
  int count = reflection.FieldSize(message, field);
  for (int i = 0; i < count; ++i) {
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        list.push_back(toJson(reflection.GetRepeatedMessage(message, field, i)));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        list.push_back(reflection.GetRepeatedString(message, field, i));
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        list.push_back(reflection.GetRepeatedUInt64(message, field, i));
        break;
      default:
        list.push_back(nullptr);  // the schema has no lists of other types
    }
  }
  return list;
}

ordered_json toJson(const Message& message) {
  ordered_json object = ordered_json::object();
  const Reflection& reflection = *message.GetReflection();
  const auto* descriptor = message.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    object[field->name()] = field->is_repeated() ? repeated(message, reflection, field)
                                                 : single(message, reflection, field);
  }
  return object;
}

}  // namespace

Table::Table(std::vector<std::string> headings) {
  for (std::string& heading : headings) {
    bool right = !heading.empty() && heading[0] == '>';
    right_.push_back(right);
    headings_.push_back(right ? heading.substr(1) : std::move(heading));
  }
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(headings_.size());
  for (std::string& cell : cells) cell = plain(cell);
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<size_t> widths;
  for (const std::string& heading : headings_) widths.push_back(heading.size());
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string result;
  auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i) {
      if (i != 0) text += "  ";
      std::string padding(widths[i] - cells[i].size(), ' ');
      text += right_[i] ? padding + cells[i] : cells[i] + padding;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    result += text + "\n";
  };
  line(headings_);
  for (const auto& row : rows_) line(row);
  return result;
}

std::string bytesText(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value,
                kUnits[unit]);
  return buffer;
}

std::string countText(uint64_t count) {
  std::string digits = std::to_string(count);
  for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string durationText(int64_t milliseconds) {
  int64_t seconds = milliseconds / 1000;
  if (seconds < 60) return std::to_string(seconds) + "s";
  if (seconds < 3600) {
    return std::to_string(seconds / 60) + "m " + std::to_string(seconds % 60) + "s";
  }
  int64_t hours = seconds / 3600;
  if (hours < 48) return std::to_string(hours) + "h " + std::to_string(seconds / 60 % 60) + "m";
  return std::to_string(hours / 24) + "d " + std::to_string(hours % 24) + "h";
}

std::string secondsText(uint64_t milliseconds) {
  return countText(milliseconds / 1000) + "." + std::to_string(milliseconds % 1000 / 100);
}

std::string microsText(uint64_t micros) {
  char buffer[64];
  if (micros < 1000) std::snprintf(buffer, sizeof buffer, "%llu us", (unsigned long long)micros);
  else std::snprintf(buffer, sizeof buffer, "%.1f ms", static_cast<double>(micros) / 1000);
  return buffer;
}

std::string timeText(int64_t milliseconds) {
  time_t seconds = milliseconds / 1000;
  tm parts{};
  gmtime_r(&seconds, &parts);
  char buffer[64];
  std::strftime(buffer, sizeof buffer, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return buffer;
}

std::string plain(const std::string& text) {
  std::string result = text;
  for (char& c : result) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return result;
}

std::string jsonText(const Message& message) {
  return toJson(message).dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

void printError(const std::string& message, const std::string& cause, const std::string& advice) {
  std::fprintf(stderr, "error: %s\n", plain(message).c_str());
  if (!cause.empty()) std::fprintf(stderr, "cause: %s\n", plain(cause).c_str());
  if (!advice.empty()) std::fprintf(stderr, "try: %s\n", plain(advice).c_str());
}

}  // namespace packmoor::ctl
