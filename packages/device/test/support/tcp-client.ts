/** Talks to 10.0.2.2 through the kernel: ping by UDP, echo, discard, character generator. Prints one JSON line, then ends. */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';

const length = Number(process.argv[2]);
const data = Buffer.alloc(length, (() => Uint8Array.from({ length: 251 }, (_, i) => i))());

function udpEcho(): Promise<boolean> {
  return new Promise((done) => {
    const socket = createSocket('udp4');
    const again = setInterval(() => socket.send('hello', 7, '10.0.2.2'), 200);
    socket.on('message', (message) => {
      clearInterval(again);
      socket.close();
      done(message.toString() === 'hello');
    });
    socket.send('hello', 7, '10.0.2.2');
  });
}

function echo(): Promise<boolean> {
  return new Promise((done) => {
    const parts: Buffer[] = [];
    const socket = connect(7, '10.0.2.2', () => socket.end(data));
    socket.on('data', (part) => parts.push(part));
    socket.on('end', () => done(Buffer.concat(parts).equals(data)));
    socket.on('error', () => done(false));
  });
}

function discard(): Promise<number> {
  const start = performance.now();
  return new Promise((done) => {
    const socket = connect(9, '10.0.2.2', () => socket.end(data));
    socket.on('end', () => done(performance.now() - start)).resume();
    socket.on('error', () => done(-1));
  });
}

function chargen(): Promise<{ right: boolean; time: number }> {
  const start = performance.now();
  return new Promise((done) => {
    let got = 0;
    let right = true;
    const socket = connect(19, '10.0.2.2');
    socket.on('data', (part) => {
      for (let i = 0; i < part.length; i += 97) {
        const at = got + i;
        const column = at % 74;
        const expected = column === 72 ? 13 : column === 73 ? 10 : 32 + (((Math.floor(at / 74) % 95) + column) % 95);
        if (part[i] !== expected) right = false;
      }
      got += part.length;
      if (got < length) return;
      socket.destroy();
      done({ right, time: performance.now() - start });
    });
    socket.on('error', () => done({ right: false, time: -1 }));
  });
}

function refused(): Promise<string> {
  return new Promise((done) => {
    const socket = connect(80, '10.0.2.2', () => done('open'));
    socket.on('error', (error: NodeJS.ErrnoException) => done(error.code ?? 'error'));
  });
}

const result = {
  udp: await udpEcho(),
  echo: await echo(),
  discard: await discard(),
  chargen: await chargen(),
  refused: await refused(),
};
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit(0);
