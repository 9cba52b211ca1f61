// SPDX-License-Identifier: Apache-2.0
// Methods that HotSpot compiles, deoptimises and compiles again, with threads
// that meet at safepoints: prints the same with -Xint and without.
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;

public class Jit {
	interface Shape { double area(); }
	record Square(double s) implements Shape { public double area() { return s * s; } }
	record Circle(double r) implements Shape { public double area() { return 3 * r * r; } }
	record Late(int x) implements Shape { public double area() { return -x; } }

	static int sieve(int n) {
		boolean[] no = new boolean[n + 1];
		int count = 0;
		for (int i = 2; i <= n; i++)
			if (!no[i]) {
				count++;
				for (long j = (long)i * i; j <= n; j += i) no[(int)j] = true;
			}
		return count;
	}

	static double shapes(int n) {
		double sum = 0;
		for (int i = 0; i < n; i++) {
			Shape s = i % 2 == 0 ? new Square(i & 7) : new Circle(i & 3);
			if (i > n - 9) s = new Late(i); // a class not seen before
			sum += s.area();
		}
		return sum;
	}

	static long nulls(int n) {
		long caught = 0;
		String[] words = {"a", null, "ccc"};
		for (int i = 0; i < n; i++)
			try { caught += words[i % 3].length(); } catch (NullPointerException e) { caught += 100; }
		return caught;
	}

	static long threads(int n) throws Exception {
		AtomicLong sum = new AtomicLong();
		Map<Integer, Integer> map = new ConcurrentHashMap<>();
		ExecutorService pool = Executors.newFixedThreadPool(4);
		for (int t = 0; t < 4; t++)
			pool.submit(() -> {
				for (int i = 0; i < n; i++) {
					sum.addAndGet(i);
					map.merge(i & 63, 1, Integer::sum);
				}
			});
		pool.shutdown();
		if (!pool.awaitTermination(100, TimeUnit.SECONDS)) return -1;
		return sum.get() + map.values().stream().mapToInt(x -> x).sum();
	}

	static int strings(int n) {
		return IntStream.range(0, n).mapToObj(i -> Integer.toHexString(i * 7919) + "-" + i % 13)
			.sorted().filter(s -> s.matches("[0-9a-f]+-7")).collect(Collectors.joining(",")).hashCode();
	}

	public static void main(String[] args) throws Exception {
		for (int round = 0; round < 3; round++) {
			System.out.println(sieve(200000) + " " + shapes(60000) + " " + nulls(10000) + " " + threads(10000) + " " + strings(5000));
			if (round == 1) System.gc();
		}
		byte[] digest = java.security.MessageDigest.getInstance("SHA-256").digest(new byte[100000]);
		System.out.println(HexFormat.of().formatHex(digest));
	}
}
