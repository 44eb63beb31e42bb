// packmoorctl journal: reads the journal of a stopped node, by the rule that recovery follows.
#pragma once

#include <string>

namespace packmoor::ctl {

// `data` is the node's data directory. Dump prints every batch and entry; verify checks all of it
// and says what is wrong. Both return an exit code: kRefused when the journal is damaged, or
// when a process has it open.
int journalDump(const std::string& data, bool json);
int journalVerify(const std::string& data, bool json);

}  // namespace packmoor::ctl
