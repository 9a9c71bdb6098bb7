import { type Command, InvalidArgumentError } from 'commander'
import { Console } from '../console.ts'
import { DEFAULT_SOCKET, DaemonClient } from '../daemon-client.ts'

export interface DaemonOptions {
  readonly json?: boolean
  readonly socket: string
}

/** Adds what every command that asks xosand takes. */
export const withDaemon = (command: Command): Command =>
  command
    .option('--json', 'print one JSON value and nothing else on standard output')
    .option(
      '--socket <path>',
      'control socket of the xosand to ask (or XOSAN_SOCKET)',
      process.env['XOSAN_SOCKET'] ?? DEFAULT_SOCKET
    )

/** Runs the body of a command with a connection that is closed however it ends. */
export async function askDaemon(
  options: DaemonOptions,
  body: (daemon: DaemonClient, out: Console) => Promise<void>
): Promise<void> {
  const daemon = new DaemonClient(options.socket)
  try {
    await body(daemon, new Console(options.json === true))
  } finally {
    daemon.close()
  }
}

export interface LabOptions {
  readonly dir: string
  readonly json?: boolean
}

/** Adds what every command about a lab takes. */
export const withLab = (command: Command): Command =>
  command
    .requiredOption('--dir <directory>', 'directory of the lab')
    .option('--json', 'print one JSON value and nothing else on standard output')

/** Parser of a whole number within bounds for commander. */
export const wholeNumber =
  (min: number, max: number) =>
  (text: string): number => {
    const value = Number(text)
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`)
    }
    return value
  }
