import { type Effect, type MirrorRequest, type RequestKind } from '../../../../core/mirror/mirror-request.ts'
import { MirrorState } from '../../../../core/mirror/mirror-state.ts'
import { RegionSet } from '../../../../core/mirror/region-set.ts'
import { byteLength, byteOffset, epoch } from '../../../../core/units.ts'
import { ms, replicaOn } from './samples.ts'

const REGIONS = 32
export const NOW = ms(1000)

/** A primary with its own replica `a` and others, by letters: capital in-sync, small stale, `+` before: rebuilding. */
export class Primary {
  readonly state = new MirrorState()
  readonly unreconciled = new RegionSet(REGIONS)
  #taken: Effect[] = []

  constructor(letters: string, options: { serving?: boolean; connected?: boolean } = {}) {
    for (const letter of letters.toLowerCase().replaceAll('+', ''))
      this.state.addLink(replicaOn(letter), letter === 'a')
    this.stand(letters)
    if (options.connected !== false) {
      for (const letter of letters.toLowerCase().replaceAll('+', '')) this.connect(letter)
    }
    if (options.serving !== false) this.state.serve(this.unreconciled)
    this.state.takeEffects(NOW)
  }

  stand(letters: string): void {
    this.state.setStandings(
      [...letters.matchAll(/\+?[a-zA-Z]/g)].map(([word]) => {
        const letter = word.at(-1)!
        const inSync = letter !== letter.toLowerCase()
        const standing = inSync ? 'in-sync' : word.startsWith('+') ? 'rebuilding' : 'stale'
        return { replica: replicaOn(letter.toLowerCase()), standing, mayBeRead: inSync }
      })
    )
  }

  connect(letter: string): void {
    this.state.connected(replicaOn(letter))
    this.state.promised(replicaOn(letter), ms(NOW + 3000))
  }

  disconnect(letter: string): void {
    this.state.disconnected(replicaOn(letter))
  }

  /** The volume is opened after every replica has lost what was not flushed. */
  loseUnflushed(): void {
    this.state.opened(epoch(1), [epoch(1), epoch(1)])
  }

  submit(kind: RequestKind, offset = 0, length = 4096, durable = false): MirrorRequest {
    return this.state.submit({ kind, offset: byteOffset(offset), length: byteLength(length), durable })
  }

  write(offset = 0, durable = false): MirrorRequest {
    return this.submit('write', offset, 4096, durable)
  }

  flush(): MirrorRequest {
    return this.submit('flush', 0, 0, true)
  }

  /** Replicas answer a request. */
  answer(request: MirrorRequest, letters: string, now = NOW): void {
    for (const letter of letters) {
      this.state.answered(request, replicaOn(letter), now)
      this.#taken.push(...this.state.takeEffects(now))
    }
  }

  /** A write that is acknowledged and finished. */
  written(letters: string, offset = 0, durable = false): void {
    this.answer(this.write(offset, durable), letters)
    this.effects()
  }

  /** What is to be done since the last call, in words: `send 1 to a`, with the numbers of the requests. */
  effects(now = NOW): string[] {
    return [...this.#taken.splice(0), ...this.state.takeEffects(now)].map(effect => {
      if (effect.do === 'reconcile') return `reconcile ${effect.region}`
      const words = `${effect.do} ${effect.request.number}`
      return 'replica' in effect ? `${words} to ${effect.replica.at(-1)!}` : words
    })
  }
}
