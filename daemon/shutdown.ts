import { type Log } from './log.ts'

/** Longer than a call in progress may need to be answered, shorter than systemd's patience (90 s). */
const SHUTDOWN_MS = 10_000

/**
 * Ends the process in good order on SIGTERM or SIGINT. Nothing depends on that: a killed process loses nothing.
 *
 * @param close ends what was started, in reverse order
 */
export function shutDownOnSignal(log: Log, close: () => Promise<void>): void {
  let begun = false
  const shutDown = (signal: string) => {
    if (begun) return
    begun = true
    log.info('shutting down', { signal })
    setTimeout(() => {
      log.warn('shutting down took too long; leaving')
      process.exit(0)
    }, SHUTDOWN_MS).unref()
    close().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error('shutting down went wrong', { reason: String(error) })
        process.exit(1)
      }
    )
  }
  process.on('SIGTERM', () => shutDown('SIGTERM'))
  process.on('SIGINT', () => shutDown('SIGINT'))
}
