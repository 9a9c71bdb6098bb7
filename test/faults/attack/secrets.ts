/** Whether anything that is secret lies where others could find it. */
import { createReadStream } from 'node:fs'
import { lstat, readFile, readdir } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { type PoolHost } from '../../../cli/lab/pool.ts'
import { type AttackLab } from './attack-lab.ts'

/** How a ticket begins. */
const TICKET = 'xosan-ticket-'
/** Entry scripts: programs that everybody may read, in a directory that only root may enter. */
const PUBLIC = /^h\d+\/plugins(\/|$)/

export interface SecretsReport {
  readonly files: number
  readonly processes: number
  readonly faults: readonly string[]
}

/** Looks at the modes of every file of a lab, and for keys and tickets in all of them and in what its processes were given. */
export async function findSecrets(attacked: AttackLab): Promise<SecretsReport> {
  const directory = attacked.lab.directory
  const secrets = await secretsOf(attacked)
  const faults: string[] = []
  const report = { files: 0, processes: 0 }
  for (const path of await everything(directory)) {
    const name = relative(attacked.lab.labDirectory, path)
    const found = await lstat(path).catch(() => null)
    // A store makes and removes files all the time.
    if (found === null) continue
    const { mode, uid } = found
    if (uid !== 0) faults.push(`${name} belongs to user ${uid}`)
    if ((mode & 0o077) !== 0 && !PUBLIC.test(name)) {
      faults.push(`${name} is open to others: mode ${(mode & 0o777).toString(8)}`)
    }
    if (!found.isFile()) continue
    report.files += 1
    if (/\/trust\/(host|authority)\.pem$/.test(name)) continue
    for (const secret of await containedIn(path, secrets)) faults.push(`${name} holds ${secret}`)
  }
  for (const host of attacked.hosts) {
    for (const { pid } of await (await attacked.lab.control(host)).processes()) {
      report.processes += 1
      for (const what of ['cmdline', 'environ']) {
        const text = await readFile(`/proc/${pid}/${what}`, 'latin1').catch(() => '')
        for (const [secret, name] of secrets) {
          if (text.includes(secret)) faults.push(`${what} of process ${pid} of ${host.name} holds ${name}`)
        }
      }
    }
  }
  return { ...report, faults }
}

/** Text by which each secret is found -> what it is. */
async function secretsOf(attacked: AttackLab): Promise<Map<string, string>> {
  const secrets = new Map([[TICKET, 'a ticket']])
  const keep = async (host: PoolHost, file: string): Promise<void> => {
    const pem = await attacked.trustFile(host, file).catch(() => null)
    // The middle line: the first is the same in all keys of a kind.
    const line = pem?.slice(0, pem.indexOf('-----END')).split('\n')[2]
    if (line !== undefined) secrets.set(line.slice(0, 40), `the key in ${file} of ${host.name}`)
  }
  for (const host of attacked.lab.hosts) {
    await keep(host, 'host.pem')
    await keep(host, 'authority.pem')
  }
  return secrets
}

/** Which of these texts a file holds. */
async function containedIn(path: string, secrets: ReadonlyMap<string, string>): Promise<string[]> {
  const longest = Math.max(...[...secrets.keys()].map(({ length }) => length))
  const found = new Set<string>()
  let end = Buffer.alloc(0)
  for await (const chunk of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    const bytes = Buffer.concat([end, chunk as Buffer])
    for (const [secret, name] of secrets) if (bytes.includes(secret)) found.add(name)
    end = bytes.subarray(-longest)
  }
  return [...found]
}

async function everything(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true })
  return entries.map(name => join(directory, name))
}
