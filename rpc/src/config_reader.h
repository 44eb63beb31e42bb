// ConfigReader: reads the tables of a TOML document and remembers what is wrong with them.
//
// Each get() names one key of the table that table() entered, and is at the same time the list
// of the keys that exist there: leave() reports every other key with the nearest known one.
// Everything borrows from the document. Messages say what was expected, then what was found.
#pragma once

#include "rpc/config.h"

#include <toml++/toml.h>

#include <string>
#include <vector>

namespace packmoor::rpc {

class ConfigReader {
 public:
  ConfigReader(const toml::table& document, std::vector<ConfigProblem>& problems);

  // Enters a table of the document; absent is like empty.
  void table(const char* name);
  void leave();
  void leaveDocument();

  // Each leaves `value` as it is when the key is absent.
  void text(const char* key, std::string& value, bool required = false);
  void texts(const char* key, std::vector<std::string>& value);
  void count(const char* key, uint64_t& value, uint64_t least, uint64_t most);
  void millis(const char* key, int64_t& value, int64_t least, int64_t most);
  void bytes(const char* key, uint64_t& value, uint64_t least, uint64_t most);
  void boolean(const char* key, bool& value);
  void choice(const char* key, std::string& value, const std::vector<std::string>& allowed);

  // A problem at a key of the present table (at the table where the key is absent).
  void problemAt(const char* key, std::string message);
  bool has(const char* key) const;

 private:
  const toml::node* find(const char* key);
  void problem(const toml::node* node, std::string message);
  void problem(const toml::source_position& where, std::string message);
  std::string path(std::string_view key) const;
  void unknownKeys(const toml::table& table, const std::vector<std::string>& known,
                   const std::string& prefix);

  const toml::table& document_;
  std::vector<ConfigProblem>& problems_;
  std::string tableName_;
  const toml::table* table_ = nullptr;     // nullptr: absent or of a wrong type
  bool tableWrong_ = false;
  std::vector<std::string> keys_;          // known in the present table
  std::vector<std::string> tables_;        // known in the document
};

}  // namespace packmoor::rpc
