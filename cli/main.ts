/** The `xosan` command. One file per family of commands in `commands/`. */
import { Command, CommanderError } from 'commander'
import packageJson from '../package.json' with { type: 'json' }
import { addHostCommands } from './commands/host.ts'
import { addLabCommands } from './commands/lab.ts'
import { addResyncCommand } from './commands/resync.ts'
import { addStatusCommand } from './commands/status.ts'
import { addTrustCommands } from './commands/trust.ts'
import { addVolumeCommands } from './commands/volume.ts'
import { EXIT, describeFailure, exitCodeOf, failureObject } from './failure.ts'

function build(): Command {
  const program = new Command('xosan')
    .description('Replicated storage for XenServer and XCP-ng: look after it, and try it out on one machine.')
    .version(packageJson.version)
    .exitOverride()
    .showHelpAfterError('(add --help for the usage)')
  addStatusCommand(program)
  addVolumeCommands(program)
  addHostCommands(program)
  addResyncCommand(program)
  addTrustCommands(program)
  addLabCommands(program)
  return program
}

async function main(): Promise<number> {
  try {
    await build().parseAsync(process.argv)
    // `lab exec` ends with the exit code of what it ran.
    return typeof process.exitCode === 'number' ? process.exitCode : EXIT.ok
  } catch (error) {
    if (error instanceof CommanderError) {
      return error.exitCode === 0 ? EXIT.ok : EXIT.usage
    }
    if (process.argv.includes('--json')) {
      process.stdout.write(`${JSON.stringify(failureObject(error))}\n`)
    }
    for (const line of describeFailure(error)) {
      process.stderr.write(`${line}\n`)
    }
    return exitCodeOf(error)
  }
}

process.exitCode = await main()
