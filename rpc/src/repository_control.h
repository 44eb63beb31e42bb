// Repositories and their settings, between the control socket's messages and the git layer.
#pragma once

#include <gitlayer/git_node.h>
#include <rpc/control.pb.h>

namespace packmoor::rpc {

// `keepMs`: for how long deleted repositories are kept.
void fillRepository(const gitlayer::RepositoryInfo& from, const std::string& volume, int64_t keepMs,
                    control::Repository& to);

void fillStatistics(const gitlayer::RepositoryStatistics& from, control::RepositoryStatistics& to);

void fillPruned(const gitlayer::GitNode::Pruned& from, control::RepoPruneReply& to);

gitlayer::Settings settingsOf(const control::RepoSetRequest& request);

// Every setting that this version knows, with what holds for the repository, and those that are set
// and that only a newer version knows.
void addSettings(const gitlayer::RepositoryInfo& repository, control::RepoReply& reply);

}  // namespace packmoor::rpc
