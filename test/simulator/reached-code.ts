import { Session } from 'node:inspector/promises'
import { pathToFileURL } from 'node:url'

/** A stretch of a script as V8 counts it: stretches lie inside each other, and the innermost counts. */
interface CountedStretch {
  readonly startOffset: number
  readonly endOffset: number
  readonly count: number
}

/** Which parts of a script have run in this process, counted by V8 block by block. */
export class ReachedCode {
  readonly #session: Session
  readonly #url: string

  private constructor(session: Session, url: string) {
    this.#session = session
    this.#url = url
  }

  /** Begins to count. Functions that were compiled before are only counted as a whole. */
  static async follow(script: string): Promise<ReachedCode> {
    const session = new Session()
    session.connect()
    await session.post('Profiler.enable')
    await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
    return new ReachedCode(session, pathToFileURL(script).href)
  }

  /** What has not run until now: start and end of each stretch, from the first to the last. */
  async notReached(): Promise<[number, number][]> {
    const { result } = await this.#session.post('Profiler.takePreciseCoverage')
    const script = result.find(({ url }) => url === this.#url)
    if (script === undefined) throw new Error(`V8 has counted nothing in ${this.#url}`)
    return stretchesNotReached(script.functions.flatMap(({ ranges }) => ranges))
  }
}

/** The stretches that no innermost counted stretch with a count covers. */
export function stretchesNotReached(counted: readonly CountedStretch[]): [number, number][] {
  const end = Math.max(0, ...counted.map(({ endOffset }) => endOffset))
  const isReached = new Uint8Array(end)
  const outerFirst = [...counted].sort((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset)
  for (const { startOffset, endOffset, count } of outerFirst) {
    isReached.fill(count > 0 ? 1 : 0, startOffset, endOffset)
  }
  const stretches: [number, number][] = []
  for (let at = isReached.indexOf(0); at !== -1;) {
    const after = isReached.indexOf(1, at)
    stretches.push([at, after === -1 ? end : after])
    at = after === -1 ? -1 : isReached.indexOf(0, after)
  }
  return stretches
}
