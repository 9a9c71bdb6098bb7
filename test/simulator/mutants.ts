/**
 * Deliberate errors in the production code, one at a time, and whether the simulator notices: a checker that nothing
 * can fail proves nothing. `npm run sim:mutants`.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { build, type Plugin } from 'esbuild'
import { MUTANTS, type Mutant } from './mutant-list.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

const { values } = parseArgs({
  options: {
    /** Universes that a mutant may survive before it counts as not caught. */
    seeds: { type: 'string', default: '150' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})

interface Verdict {
  readonly mutant: string
  readonly caughtBy: string
  readonly seeds: number
  readonly example: string
}

/** Replaces one passage of one source file while it is bundled. */
function patch({ file, find, replace }: Mutant): Plugin {
  let applied = false
  return {
    name: 'mutant',
    setup(context) {
      context.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        if (relative(root, path) !== file) return undefined
        const source = await readFile(path, 'utf8')
        if (source.split(find).length !== 2)
          throw new Error(`the passage is not in ${file} exactly once: ${find}`)
        applied = true
        return { contents: source.replace(find, () => replace), loader: 'ts' }
      })
      context.onEnd(() => {
        if (!applied) throw new Error(`${file} is not part of the simulator`)
      })
    },
  }
}

async function judge(mutant: Mutant, seeds: number, directory: string): Promise<Verdict> {
  const outfile = join(directory, `${mutant.name.replace(/\W+/g, '-')}.mjs`)
  await build({
    absWorkingDir: root,
    entryPoints: ['test/simulator/run.ts'],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    external: ['better-sqlite3', 'fs-native-extensions'],
    plugins: [patch(mutant)],
    logLevel: 'silent',
  })
  const args = [outfile, '--seeds', String(seeds), '--until-broken', '--json']
  const { stdout, stderr } = await run(process.execPath, args, { maxBuffer: 64 * 1024 * 1024 }).catch(
    (error: unknown) => error as { stdout: string; stderr: string }
  )
  const universes = (JSON.parse(stdout) as { universes: number }).universes
  const first = stderr.split('\n').find(line => line.startsWith('seed '))
  const checkers = new Set([...stderr.matchAll(/^seed \d+: (P\d(?:\/P\d)?)/gm)].map(match => match[1]!))
  return {
    mutant: mutant.name,
    caughtBy: [...checkers].sort().join(' '),
    seeds: universes,
    example: first ?? '',
  }
}

const directory = await mkdtemp(join(root, 'node_modules', '.mutants-'))
const verdicts: Verdict[] = []
try {
  const chosen = MUTANTS.filter(({ name }) => values.only === undefined || name.includes(values.only))
  for (const mutant of chosen) {
    const verdict = await judge(mutant, Number(values.seeds), directory)
    verdicts.push(verdict)
    if (values.json) continue
    const mark = verdict.caughtBy === '' ? 'SURVIVED' : verdict.caughtBy
    console.log(`${verdict.mutant.padEnd(64)} ${mark.padEnd(12)} after ${verdict.seeds}`)
  }
} finally {
  await rm(directory, { recursive: true, force: true })
}
const survivors = verdicts.filter(({ caughtBy }) => caughtBy === '')
if (values.json) console.log(JSON.stringify(verdicts, null, 2))
else console.log(`${verdicts.length - survivors.length} of ${verdicts.length} errors were caught`)
process.exitCode = survivors.length === 0 ? 0 : 1
