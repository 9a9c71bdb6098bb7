/**
 * One seed is one universe: its log is the same, byte for byte, whenever and wherever it runs. Runs some seeds twice
 * here and once on each other supported Node, fetched from the npm registry. `npm run sim:identical`.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { build } from 'esbuild'

const root = fileURLToPath(new URL('../..', import.meta.url))
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
  const directory = join(root, 'node_modules', '.cache', `node-${version}`)
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

async function digests(program: string, script: string): Promise<string> {
  const args = [script, '--digest', '--seeds', values.seeds, '--first-seed', values['first-seed']]
  const { stdout } = await run(program, args)
  return stdout
}

const script = join(root, 'node_modules', '.cache', 'simulator.mjs')
await build({
  absWorkingDir: root,
  entryPoints: ['test/simulator/run.ts'],
  outfile: script,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  external: ['better-sqlite3', 'fs-native-extensions'],
  logLevel: 'warning',
})

const first = await digests(process.execPath, script)
console.log(`${process.version} (this one)\n${first.trimEnd()}`)
let different = 0
const programs: [string, string][] = [['the same again', process.execPath]]
for (const version of values.nodes.split(',').filter(text => text !== '')) {
  programs.push([`Node ${version}`, await nodeProgram(version)])
}
for (const [name, program] of programs) {
  const { stdout: version } = await run(program, ['--version'])
  const same = (await digests(program, script)) === first
  if (!same) different++
  console.log(`${version.trim()} (${name}): ${same ? 'identical' : 'DIFFERENT'}`)
}
process.exitCode = different === 0 ? 0 : 1
