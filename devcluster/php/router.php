<?php
// For PHP's built-in web server: files are served as they are, every other address is a pretty permalink of WordPress.

$root = $_SERVER['DOCUMENT_ROOT'];
$path = rawurldecode(parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH) ?: '/');
$target = realpath($root . $path);

if ($path !== '/' && $target !== false && str_starts_with($target, $root . '/')) {
    if (is_file($target)) {
        return false;
    }
    if (is_file($target . '/index.php')) {
        if (str_ends_with($path, '/')) {
            return false;
        }
        header('Location: ' . $path . '/');
        exit;
    }
}

if (getenv('WORDPRESS_PERMALINKS') && $path !== '/' && !str_starts_with($path, '/index.php')) {
    http_response_code(404);   // as a web server answers that rewrites nothing
    exit('Not found');
}

$_SERVER['SCRIPT_NAME'] = $_SERVER['PHP_SELF'] = '/index.php';
$_SERVER['SCRIPT_FILENAME'] = $root . '/index.php';
chdir($root);
require $root . '/index.php';
