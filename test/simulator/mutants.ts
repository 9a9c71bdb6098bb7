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
import { reasonOf } from '../../core/errors.ts'
import { bundleWorker, PROJECT_ROOT } from './bundle.ts'
import { MUTANTS, type Mutant } from './mutant-list.ts'
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

interface Verdict {
  readonly mutant: string
  /** Promises that the error breaks. */
  readonly breaks: readonly string[]
  /** The promise whose checker caught it; null when none of the right ones did. */
  readonly caughtBy: string | null
  /** Promises that other universes broke before that. */
  readonly othersBroken: readonly string[]
  /** Universes that were looked into. */
  readonly universes: number
  readonly example: string
}

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

/** The promises that a problem breaks: it begins with them. */
const promisesOf = (problem: string): string[] => /^P\d+(?:\/P\d+)*/.exec(problem)?.[0].split('/') ?? []

async function judge(mutant: Mutant): Promise<Verdict> {
  const script = await bundleWorker(`mutant-${mutant.name.replace(/\W+/g, '-')}`, [patch(mutant)])
  const { name } = mutant
  const breaks: readonly string[] = mutant.breaks
  const others = new Set<string>()
  let universes = 0
  let example = ''
  const verdict = (caughtBy: string | null): Verdict => ({
    mutant: name,
    breaks,
    caughtBy,
    othersBroken: [...others].sort(),
    universes,
    example,
  })
  const pool = { script, first: Number(values['first-seed']), count: Number(values.seeds), jobs: 1 }
  try {
    for await (const { report } of lookInto(pool)) {
      universes++
      for (const problem of report.problems) {
        const promises = promisesOf(problem)
        if (example === '') example = `seed ${report.seed}: ${problem}`
        const right = promises.find(promise => breaks.includes(promise))
        if (right !== undefined) {
          example = `seed ${report.seed}: ${problem}`
          return verdict(right)
        }
        for (const promise of promises) others.add(promise)
      }
    }
  } catch (error) {
    // The process has died or hangs, as the real one would.
    example = reasonOf(error)
    others.add('P9')
    return verdict(breaks.includes('P9') ? 'P9' : null)
  }
  return verdict(null)
}

function show({ mutant, caughtBy, othersBroken, universes, example }: Verdict): void {
  const found = othersBroken.length === 0 ? 'SURVIVED' : `ONLY BY ${othersBroken.join(' ')}`
  console.log(`${mutant.padEnd(84)} ${(caughtBy ?? found).padEnd(9)} after ${universes}`)
  if (caughtBy === null && example !== '') console.log(`    ${example}`)
}

const waiting = MUTANTS.filter(({ name }) => new RegExp(values.only).test(name))
const verdicts: Verdict[] = []
const work = async (): Promise<void> => {
  for (let mutant = waiting.shift(); mutant !== undefined; mutant = waiting.shift()) {
    const verdict = await judge(mutant)
    verdicts.push(verdict)
    if (!values.json) show(verdict)
  }
}
await Promise.all(Array.from({ length: Number(values.jobs) }, work))
const missed = verdicts.filter(({ caughtBy }) => caughtBy === null)
if (values.json) console.log(JSON.stringify(verdicts, null, 2))
else
  console.log(
    `${verdicts.length - missed.length} of ${verdicts.length} errors were caught by a checker of a promise that they break`
  )
process.exitCode = missed.length === 0 ? 0 : 1
