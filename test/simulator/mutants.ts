/**
 * Deliberate errors in the production code, one at a time, and whether the simulator notices: a checker that nothing
 * can fail proves nothing. `npm run sim:mutants`.
 *
 * An error is caught when a universe breaks a promise that the error breaks; one that only breaks others shows that a
 * checker is missing, and counts as not caught.
 */
import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { relative } from 'node:path'
import { parseArgs } from 'node:util'
import { type Plugin } from 'esbuild'
import { bundleWorker, PROJECT_ROOT } from './bundle.ts'
import { MUTANTS, type Mutant } from './mutant-list.ts'
import { MutantTable, type Verdict } from './mutant-table.ts'
import { promisesOf } from './promises.ts'
import { lookInto } from './worker-pool.ts'

const { values } = parseArgs({
  options: {
    /** Universes that a mutant may survive before it counts as not caught. */
    seeds: { type: 'string', default: '150' },
    'first-seed': { type: 'string', default: '1' },
    /** Only those whose name matches this pattern. */
    only: { type: 'string', default: '' },
    /** Mutants at once, each in a process of its own. */
    jobs: { type: 'string', default: String(availableParallelism()) },
    json: { type: 'boolean', default: false },
  },
})

/** A universe that takes so long, with an error in it, turns in a circle; in milliseconds of real time. */
const LIMIT_MS = 180_000

/** Replaces one passage of one source file while it is bundled. */
function patch({ file, find, replace }: Mutant): Plugin {
  let applied = false
  return {
    name: 'mutant',
    setup(context) {
      context.onLoad({ filter: /\.ts$/ }, async ({ path }) => {
        if (relative(PROJECT_ROOT, path) !== file) return undefined
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

async function judge(mutant: Mutant, number: number, table: MutantTable): Promise<Verdict> {
  const { name, breaks } = mutant
  const started = performance.now()
  const script = await bundleWorker(`mutant-${name.replace(/\W+/g, '-')}`, [patch(mutant)])
  const others = new Set<string>()
  let universes = 0
  let example = ''
  const verdict = (caughtBy: string | null): Verdict => ({
    number,
    mutant: name,
    breaks,
    caughtBy,
    othersBroken: [...others].sort(),
    universes,
    seconds: Math.round((performance.now() - started) / 1000),
    example,
  })
  const pool = {
    script,
    first: Number(values['first-seed']),
    count: Number(values.seeds),
    jobs: 1,
    args: [`--until=${breaks.join()}`],
    limitMs: LIMIT_MS,
  }
  for await (const { report } of lookInto(pool)) {
    universes++
    table.progress(name, universes)
    for (const problem of report.problems) {
      const promises = promisesOf(problem)
      const right = breaks.find(promise => promises.includes(promise))
      if (example === '' || right !== undefined) example = `seed ${report.seed}: ${problem}`
      if (right !== undefined) return verdict(right)
      for (const promise of promises) others.add(promise)
    }
  }
  return verdict(null)
}

const wanted = new RegExp(values.only)
const waiting = MUTANTS.map((mutant, at) => [mutant, at + 1] as const).filter(([{ name }]) =>
  wanted.test(name)
)
const table = new MutantTable(waiting.length, Number(values.seeds))
const verdicts: Verdict[] = []
const work = async (): Promise<void> => {
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    const verdict = await judge(...next, table)
    verdicts.push(verdict)
    table.judged(verdict, values.json)
  }
}
await Promise.all(Array.from({ length: Number(values.jobs) }, work))
if (values.json)
  console.log(
    JSON.stringify(
      verdicts.sort((a, b) => a.number - b.number),
      null,
      2
    )
  )
else table.end(verdicts)
process.exitCode = verdicts.every(({ caughtBy }) => caughtBy !== null) ? 0 : 1
