#include "archive_request.h"

#include "upload_request.h"

namespace packmoor::gitlayer {
namespace {

struct NamedFormat {
  std::string_view name;
  ArchiveFormatName format;
};
constexpr NamedFormat kFormats[] = {{"tar", ArchiveFormatName::kTar},
                                    {"tgz", ArchiveFormatName::kTarGz},
                                    {"tar.gz", ArchiveFormatName::kTarGz},
                                    {"zip", ArchiveFormatName::kZip}};

bool startsWith(std::string_view text, std::string_view with) {
  return text.substr(0, with.size()) == with;
}

// Whether `path` is `folder` or below it. An empty folder is the topmost.
bool isAtOrBelow(std::string_view path, std::string_view folder) {
  return folder.empty() || (startsWith(path, folder) &&
                            (path.size() == folder.size() || path[folder.size()] == '/'));
}

}  // namespace

std::string archiveFormatNames() {
  std::string names;
  for (const NamedFormat& known : kFormats) names.append(known.name).append(1, '\n');
  return names;
}

// ---- paths

std::optional<std::string> Pathspec::parse(std::string_view text) {
  text_ = text;
  if (text.size() > kBytesMax) return "a pathspec is longer than " + std::to_string(kBytesMax) + " bytes";
  for (std::string_view mark : {":!", ":^", ":(exclude)"}) {
    if (!excludes_ && startsWith(text, mark)) {
      excludes_ = true;
      text.remove_prefix(mark.size());
    }
  }
  if (startsWith(text, ":")) return "this server does not know the pathspec magic of " + quotedLine(text_);
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('/', at), text.size());
    std::string_view part = text.substr(at, end - at);
    at = end + 1;
    if (part == "..") return quotedLine(text_) + " is outside repository";
    if (part.empty() || part == ".") continue;
    if (!path_.empty()) path_ += '/';
    path_ += part;
  }
  foldersOnly_ = !path_.empty() && text.back() == '/';
  literalBytes_ = std::min(path_.find_first_of("*?[\\"), path_.size());
  if (literalBytes_ < path_.size()) pattern_.emplace(path_, false);
  return std::nullopt;
}

bool Pathspec::selects(std::string_view path, bool isFolder, uint64_t& work) const {
  if (isAtOrBelow(path, path_) && (!foldersOnly_ || isFolder || path.size() > path_.size())) return true;
  if (!pattern_ || (foldersOnly_ && !isFolder)) return false;
  return startsWith(path, path_.substr(0, literalBytes_)) && pattern_->matches(path, work);
}

bool Pathspec::mayBeBelow(std::string_view folder) const {
  if (isAtOrBelow(folder, path_) || isAtOrBelow(path_, folder)) return true;
  if (!pattern_) return false;
  const std::string_view literal = std::string_view(path_).substr(0, literalBytes_);
  const size_t common = std::min(literal.size(), folder.size());
  return literal.substr(0, common) == folder.substr(0, common) &&
         (literal.size() <= folder.size() || literal[folder.size()] == '/');
}

// ---- words

std::optional<std::string> ArchiveRequest::setFormat(std::string_view name) {
  for (const NamedFormat& known : kFormats) {
    if (known.name != name) continue;
    format = known.format;
    return std::nullopt;
  }
  return "Unknown archive format " + quotedLine(name);
}

// The word at `at`, and the next where it is the option's value.
std::optional<std::string> ArchiveRequest::parseOption(const std::vector<std::string>& words,
                                                       size_t& at) {
  const std::string& word = words[at];
  const size_t equals = word.find('=');
  const std::string name = word.substr(0, equals);
  if (name == "--format" || name == "--prefix") {
    if (equals == word.npos && at + 1 == words.size()) return "option " + quotedLine(name) + " requires a value";
    const std::string value = equals == word.npos ? words[++at] : word.substr(equals + 1);
    if (name == "--format") return setFormat(value);
    prefix = value;
    if (prefix.size() <= kPrefixBytesMax) return std::nullopt;
    return "the prefix is longer than " + std::to_string(kPrefixBytesMax) + " bytes";
  }
  if (word == "-v" || word == "--verbose") {
    verbose = true;
  } else if (word == "-l" || word == "--list") {
    list = true;
  } else if (word.size() > 1 && word.find_first_not_of("0123456789", 1) == word.npos) {
    level = word.size() == 2 ? word[1] - '0' : 10;
  } else {
    return "this server does not know the option " + quotedLine(word) + " of git archive";
  }
  return std::nullopt;
}

std::optional<std::string> ArchiveRequest::parse(const std::vector<std::string>& words) {
  bool options = true, tree = false;
  for (size_t at = 0; at < words.size(); ++at) {
    const std::string& word = words[at];
    std::optional<std::string> problem;
    if (options && word == "--") {
      options = false;
    } else if (options && word.size() > 1 && word.front() == '-') {
      problem = parseOption(words, at);
    } else if (!tree) {
      treeish = word;
      tree = true;
    } else {
      problem = paths.emplace_back().parse(word);
    }
    if (problem) return problem;
  }
  if (list) {
    if (tree) return "extra command line parameter " + quotedLine(treeish);
    return std::nullopt;
  }
  if (!tree) return "name what is to be archived: a branch or a tag";
  if (level >= 0 && (level > 9 || format == ArchiveFormatName::kTar)) {
    return "Argument not supported for this format: a level of compression";
  }
  return std::nullopt;
}

}  // namespace packmoor::gitlayer
