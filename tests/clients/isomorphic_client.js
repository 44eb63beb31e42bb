// isomorphic-git, by the verbs of README.md. PACKMOOR_NODE_MODULES: the folder that npm has filled.
const fs = require('fs')
const path = require('path')
const git = require(path.join(process.env.PACKMOOR_NODE_MODULES, 'isomorphic-git'))
const http = require(path.join(process.env.PACKMOOR_NODE_MODULES, 'isomorphic-git/http/node'))

const author = { name: 't', email: 't@example.org' }

async function push(dir, refspec) {
  const colon = refspec.indexOf(':')
  const source = colon < 0 ? refspec : refspec.slice(0, colon)
  const target = colon < 0 ? refspec : refspec.slice(colon + 1)
  // It wants a branch that is here, also for a deletion.
  const result = await git.push({
    fs, http, dir, remote: 'origin', ref: source || 'main', remoteRef: `refs/heads/${target}`,
    delete: source === ''
  })
  if (!result.ok) throw new Error(JSON.stringify(result))
}

async function main(verb, ...words) {
  const dir = words[verb === 'clone' ? 1 : 0]
  if (verb === 'clone') {
    await git.clone({ fs, http, dir, url: words[0] })
  } else if (verb === 'commit') {
    fs.writeFileSync(path.join(dir, words[1]), words[2])
    await git.add({ fs, dir, filepath: words[1] })
    console.log(await git.commit({ fs, dir, message: 'by isomorphic-git', author }))
  } else if (verb === 'push') {
    await push(dir, words[1])
  } else if (verb === 'fetch') {
    await git.fetch({ fs, http, dir, remote: 'origin' })
    const value = await git.resolveRef({ fs, dir, ref: 'refs/remotes/origin/main' })
    await git.writeRef({ fs, dir, ref: 'refs/heads/main', value, force: true })
    await git.checkout({ fs, dir, ref: 'main', force: true })
  }
}

main(...process.argv.slice(2)).catch(error => {
  console.error(error)
  process.exit(1)
})
