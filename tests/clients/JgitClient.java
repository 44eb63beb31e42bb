// JGit, by the verbs of README.md.
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import org.eclipse.jgit.api.Git;
import org.eclipse.jgit.api.ResetCommand.ResetType;
import org.eclipse.jgit.transport.PushResult;
import org.eclipse.jgit.transport.RefSpec;
import org.eclipse.jgit.transport.RemoteRefUpdate;

public class JgitClient {
    public static void main(String[] words) throws Exception {
        if (words[0].equals("clone")) {
            Git.cloneRepository().setURI(words[1]).setDirectory(new File(words[2])).call().close();
            return;
        }
        try (Git git = Git.open(new File(words[1]))) {
            switch (words[0]) {
                case "commit":
                    Files.writeString(Path.of(words[1], words[2]), words[3]);
                    git.add().addFilepattern(words[2]).call();
                    System.out.println(git.commit().setMessage("by JGit")
                                           .setAuthor("t", "t@example.org")
                                           .setCommitter("t", "t@example.org").call().name());
                    break;
                case "push":
                    push(git, words[2]);
                    break;
                case "fetch":
                    git.fetch().call();
                    git.reset().setMode(ResetType.HARD).setRef("refs/remotes/origin/main").call();
                    break;
                default:
                    throw new IllegalArgumentException(words[0]);
            }
        }
    }

    private static void push(Git git, String refspec) throws Exception {
        int colon = refspec.indexOf(':');
        String source = colon < 0 ? refspec : refspec.substring(0, colon);
        String target = colon < 0 ? refspec : refspec.substring(colon + 1);
        String full = (source.isEmpty() ? "" : "refs/heads/" + source) + ":refs/heads/" + target;
        for (PushResult result : git.push().setRefSpecs(new RefSpec(full)).call()) {
            for (RemoteRefUpdate update : result.getRemoteUpdates()) {
                if (update.getStatus() == RemoteRefUpdate.Status.OK) continue;
                System.err.println(update + " " + result.getMessages());
                System.exit(1);
            }
        }
    }
}
