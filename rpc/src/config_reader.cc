#include "config_reader.h"

#include <algorithm>
#include <cctype>
#include <sstream>

namespace packmoor::rpc {
namespace {

constexpr size_t kNearDistanceMax = 3;

size_t editDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t above = row[j];
      size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above + 1, row[j - 1] + 1, change});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string typeName(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "a list";
    case toml::node_type::string: return "text";
    case toml::node_type::integer: return "an integer";
    case toml::node_type::floating_point: return "a number with a fraction";
    case toml::node_type::boolean: return "true or false";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time: return "a date or time";
    default: return "nothing";
  }
}

std::string byteText(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (unit + 1 < std::size(kUnits) && bytes != 0 && bytes % 1024 == 0) {
    bytes /= 1024;
    ++unit;
  }
  return std::to_string(bytes) + " " + kUnits[unit];
}

}  // namespace

std::string nearestWord(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t bestDistance = kNearDistanceMax + 1;
  for (const std::string& candidate : candidates) {
    size_t distance = editDistance(word, candidate);
    // A distance near the word's own length says nothing.
    if (distance < bestDistance && distance < std::max<size_t>(candidate.size(), 2)) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

bool parseByteCount(std::string_view text, uint64_t& bytes) {
  size_t digits = 0;
  uint64_t value = 0;
  while (digits < text.size() && std::isdigit(static_cast<unsigned char>(text[digits]))) {
    if (__builtin_mul_overflow(value, 10, &value)) return false;
    if (__builtin_add_overflow(value, static_cast<uint64_t>(text[digits] - '0'), &value)) {
      return false;
    }
    ++digits;
  }
  if (digits == 0) return false;
  std::string unit;
  for (char c : text.substr(digits)) {
    if (c != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  int shift;
  if (unit.empty() || unit == "b") shift = 0;
  else if (unit == "k" || unit == "kib") shift = 10;
  else if (unit == "m" || unit == "mib") shift = 20;
  else if (unit == "g" || unit == "gib") shift = 30;
  else if (unit == "t" || unit == "tib") shift = 40;
  else return false;
  if (shift != 0 && (value >> (64 - shift)) != 0) return false;
  bytes = value << shift;
  return true;
}

ConfigReader::ConfigReader(const toml::table& document, std::vector<ConfigProblem>& problems)
    : document_(document), problems_(problems) {}

void ConfigReader::table(const char* name) {
  tableName_ = name;
  keys_.clear();
  tables_.push_back(name);
  table_ = nullptr;
  tableWrong_ = false;
  const toml::node* node = document_.get(name);
  if (node == nullptr) return;
  table_ = node->as_table();
  if (table_ == nullptr) {
    tableWrong_ = true;
    problem(node, "[" + tableName_ + "] must be a table, and is " + typeName(*node) + ".");
  }
}

void ConfigReader::leave() {
  if (table_ != nullptr) unknownKeys(*table_, keys_, tableName_);
}

void ConfigReader::leaveDocument() { unknownKeys(document_, tables_, ""); }

void ConfigReader::unknownKeys(const toml::table& table, const std::vector<std::string>& known,
                               const std::string& prefix) {
  bool document = prefix.empty();
  for (auto&& [key, node] : table) {
    std::string word(key.str());
    if (std::find(known.begin(), known.end(), word) != known.end()) continue;
    std::string message = document ? "There is no table [" + word + "]."
                                   : "There is no key \"" + word + "\" in [" + prefix + "].";
    std::string near = nearestWord(word, known);
    if (!near.empty()) {
      message += document ? " Is [" + near + "] meant?" : " Is \"" + near + "\" meant?";
    } else {
      message += document ? " The tables are" : " The keys there are";
      for (size_t i = 0; i < known.size(); ++i) message += (i == 0 ? " " : ", ") + known[i];
      message += ".";
    }
    problem(key.source().begin, std::move(message));
  }
}

const toml::node* ConfigReader::find(const char* key) {
  keys_.push_back(key);
  return table_ == nullptr ? nullptr : table_->get(key);
}

bool ConfigReader::has(const char* key) const {
  return table_ != nullptr && table_->get(key) != nullptr;
}

std::string ConfigReader::path(std::string_view key) const {
  return tableName_ + "." + std::string(key);
}

void ConfigReader::text(const char* key, std::string& value, bool required) {
  const toml::node* node = find(key);
  if (node == nullptr) {
    if (required && !tableWrong_) problemAt(key, path(key) + " is missing; it must be given.");
    return;
  }
  if (const auto* found = node->as_string()) {
    value = found->get();
    if (value.find('\0') != std::string::npos) {
      problem(node, path(key) + " must not contain a null character.");
    }
  } else {
    problem(node, path(key) + " must be text in quotes, and is " + typeName(*node) + ".");
  }
}

void ConfigReader::texts(const char* key, std::vector<std::string>& value) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const toml::array* list = node->as_array();
  if (list == nullptr) {
    problem(node, path(key) + " must be a list of texts, as in [\"a\", \"b\"], and is " +
                      typeName(*node) + ".");
    return;
  }
  value.clear();
  for (const toml::node& item : *list) {
    if (const auto* found = item.as_string()) value.push_back(found->get());
    else problem(&item, path(key) + " must hold texts only, and holds " + typeName(item) + ".");
  }
}

void ConfigReader::count(const char* key, uint64_t& value, uint64_t least, uint64_t most) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto* found = node->as_integer();
  if (found == nullptr) {
    problem(node, path(key) + " must be an integer, and is " + typeName(*node) + ".");
  } else if (found->get() < 0 || static_cast<uint64_t>(found->get()) < least ||
             static_cast<uint64_t>(found->get()) > most) {
    problem(node, path(key) + " must be from " + std::to_string(least) + " to " +
                      std::to_string(most) + ", and is " + std::to_string(found->get()) + ".");
  } else {
    value = static_cast<uint64_t>(found->get());
  }
}

void ConfigReader::millis(const char* key, int64_t& value, int64_t least, int64_t most) {
  uint64_t given = static_cast<uint64_t>(value);
  count(key, given, static_cast<uint64_t>(least), static_cast<uint64_t>(most));
  value = static_cast<int64_t>(given);
}

void ConfigReader::bytes(const char* key, uint64_t& value, uint64_t least, uint64_t most) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  uint64_t given = 0;
  bool understood = false;
  if (const auto* number = node->as_integer()) {
    understood = number->get() >= 0;
    given = static_cast<uint64_t>(number->get());
  } else if (const auto* text = node->as_string()) {
    understood = parseByteCount(text->get(), given);
  }
  if (!understood) {
    problem(node, path(key) + " must be a size, as in 65536 or \"64 KiB\" (units: KiB, MiB, GiB, "
                      "TiB).");
  } else if (given < least || given > most) {
    problem(node, path(key) + " must be from " + byteText(least) + " to " + byteText(most) +
                      ", and is " + byteText(given) + ".");
  } else {
    value = given;
  }
}

void ConfigReader::boolean(const char* key, bool& value) {
  const toml::node* node = find(key);
  if (node == nullptr) return;
  const auto given = node->value_exact<bool>();
  if (given.has_value()) value = *given;
  else problem(node, path(key) + " must be true or false.");
}

void ConfigReader::choice(const char* key, std::string& value,
                          const std::vector<std::string>& allowed) {
  std::string given = value;
  size_t before = problems_.size();
  text(key, given);
  if (problems_.size() != before) return;
  if (std::find(allowed.begin(), allowed.end(), given) != allowed.end()) {
    value = given;
    return;
  }
  std::string message = path(key) + " must be one of";
  for (size_t i = 0; i < allowed.size(); ++i) message += (i == 0 ? " " : ", ") + allowed[i];
  message += ", and is \"" + given + "\".";
  std::string near = nearestWord(given, allowed);
  if (!near.empty()) message += " Is \"" + near + "\" meant?";
  problemAt(key, std::move(message));
}

void ConfigReader::problemAt(const char* key, std::string message) {
  const toml::node* node = table_ == nullptr ? nullptr : table_->get(key);
  if (node == nullptr) node = table_;
  problem(node, std::move(message));
}

void ConfigReader::problem(const toml::node* node, std::string message) {
  problem(node == nullptr ? toml::source_position{} : node->source().begin, std::move(message));
}

void ConfigReader::problem(const toml::source_position& where, std::string message) {
  problems_.push_back(ConfigProblem{static_cast<uint32_t>(where.line),
                                    static_cast<uint32_t>(where.column), std::move(message)});
}

}  // namespace packmoor::rpc
