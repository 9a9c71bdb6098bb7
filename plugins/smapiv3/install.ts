import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { XosanError } from '../../core/errors.ts'
import packageJson from '../../package.json' with { type: 'json' }
import { datapathPluginQuery, volumePluginQuery } from '../../volume/plugin/plugin-calls.ts'
import { smapiCalls } from '../../volume/smapi.ts'

/** The SR type is the last part of the first name; the second is the scheme of the volumes' URIs. */
const PLUGINS = {
  volume: { directory: 'volume/org.xen.xapi.storage.xosan', query: volumePluginQuery },
  datapath: { directory: 'datapath/xosan', query: datapathPluginQuery },
} as const

/** What the entry scripts read, in a folder beside them that no call is named like. */
const OWN_FOLDER = '.xosan'

/**
 * Lays out a plugin root as xapi-storage-script expects it: the entry script under the name of every call, in one
 * folder per plugin. Scripts of calls that this version does not have are removed, since xapi takes each script that
 * it finds for a promise.
 *
 * @param root e.g. `/usr/libexec/xapi-storage-script`
 * @param controlSocket of the xosand that the scripts talk to
 */
export async function installPlugins(
  root: string,
  { controlSocket }: { readonly controlSocket: string }
): Promise<void> {
  const entry = await readFile(entryScript(), 'utf8')
  for (const [plugin, { directory, query }] of Object.entries(PLUGINS)) {
    const folder = join(root, directory)
    const own = join(folder, OWN_FOLDER)
    await mkdir(own, { recursive: true })
    await put(join(own, 'socket'), `${controlSocket}\n`, 0o644)
    await put(join(own, 'Plugin.Query.json'), `${JSON.stringify(query(packageJson.version))}\n`, 0o644)
    const names = Object.keys(smapiCalls[plugin as keyof typeof PLUGINS])
    for (const name of names) await put(join(folder, name), entry, 0o755)
    const stale = (await readdir(folder)).filter(name => name !== OWN_FOLDER && !names.includes(name))
    for (const name of stale) await rm(join(folder, name), { recursive: true })
  }
}

/** A call may be running from the file that is replaced: it keeps the old one. */
async function put(file: string, content: string, mode: number): Promise<void> {
  const unfinished = `${file}.new`
  await rm(unfinished, { force: true })
  await writeFile(unfinished, content, { mode })
  await rename(unfinished, file)
}

/** The entry script's source: this code may run from its source or from a bundle beside it. */
function entryScript(): string {
  const name = join('plugins', 'smapiv3', 'entry.py')
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    if (existsSync(join(folder, name))) return join(folder, name)
    if (folder === dirname(folder)) {
      throw new XosanError('INTERNAL', { reason: `${name} is not part of this installation` })
    }
  }
}
