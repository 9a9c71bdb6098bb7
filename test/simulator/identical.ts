/**
 * One seed is one universe: its log is the same, byte for byte, whenever and wherever it runs. Runs some seeds twice
 * here and once on each other supported Node, fetched from the npm registry. `npm run sim:identical`.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { bundleWorker, PROJECT_ROOT } from './bundle.ts'
import { lookInto } from './worker-pool.ts'

const run = promisify(execFile)

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '5' },
    'first-seed': { type: 'string', default: '1' },
    /** Versions of Node beside the one that runs this. */
    nodes: { type: 'string', default: '20,22,24' },
  },
})

/** The program of a version of Node, from the registry's `node` package; kept for the next time. */
async function nodeProgram(version: string): Promise<string> {
  const directory = join(PROJECT_ROOT, 'node_modules', '.cache', `node-${version}`)
  const program = join(directory, 'node_modules', 'node', 'bin', 'node')
  if (!existsSync(program)) {
    await mkdir(directory, { recursive: true })
    await run('npm', [
      'install',
      '--prefix',
      directory,
      '--no-audit',
      '--no-fund',
      '--no-save',
      `node@${version}`,
    ])
  }
  return program
}

const script = await bundleWorker('universe-worker')

/** A line for each seed: its number, and a hash of its log. */
async function digests(execPath: string): Promise<string> {
  const [first, count] = [Number(values['first-seed']), Number(values.seeds)]
  const lines: string[] = []
  for await (const { report, digest } of lookInto({
    script,
    first,
    count,
    jobs: 2,
    args: ['--digest'],
    execPath,
  })) {
    lines.push(`${report.seed} ${digest}`)
  }
  return lines.join('\n')
}

const first = await digests(process.execPath)
console.log(`${process.version} (this one)\n${first}`)
let different = 0
const programs: [string, string][] = [['the same again', process.execPath]]
for (const version of values.nodes.split(',').filter(text => text !== '')) {
  programs.push([`Node ${version}`, await nodeProgram(version)])
}
for (const [name, program] of programs) {
  const { stdout: version } = await run(program, ['--version'])
  const same = (await digests(program)) === first
  if (!same) different++
  console.log(`${version.trim()} (${name}): ${same ? 'identical' : 'DIFFERENT'}`)
}
process.exitCode = different === 0 ? 0 : 1
