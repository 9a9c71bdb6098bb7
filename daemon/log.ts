import { createLogger, format, transports } from 'winston'

/** Facts that go with a message; values only, so that a line stays one line. */
export type LogFacts = Readonly<Record<string, string | number | boolean | null | undefined>>

/** Where a program tells what happens. Never given secrets: keys, certificates and guests' bytes stay out. */
export interface Log {
  error(message: string, facts?: LogFacts): void
  warn(message: string, facts?: LogFacts): void
  info(message: string, facts?: LogFacts): void
  debug(message: string, facts?: LogFacts): void
}

/**
 * A log of JSON lines on stderr, which systemd or a supervisor keeps.
 *
 * @param program name that each line carries, with the process id
 */
export function createLog(program: string, level: 'error' | 'warn' | 'info' | 'debug'): Log {
  const logger = createLogger({
    level,
    defaultMeta: { program, pid: process.pid },
    format: format.combine(format.timestamp(), format.json()),
    // winston types its transports as interfaces with a constructor, which the rule takes for a foreign object.
    // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment
    transports: [new transports.Stream({ stream: process.stderr })],
  })
  return {
    error: (message, facts) => void logger.error(message, facts),
    warn: (message, facts) => void logger.warn(message, facts),
    info: (message, facts) => void logger.info(message, facts),
    debug: (message, facts) => void logger.debug(message, facts),
  }
}
